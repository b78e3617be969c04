"""Interactive charts of the page, as plain data."""
