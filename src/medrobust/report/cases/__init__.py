"""The page of single test images, beside the report."""
