"""Data sources, one module each, and the helpers that they share (archives, downloads, tables)."""
