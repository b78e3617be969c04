"""Data of the interactive charts on the page."""
