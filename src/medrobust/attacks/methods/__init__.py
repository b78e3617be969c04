"""Attack methods, one file per family."""
