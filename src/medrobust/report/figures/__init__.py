"""Static figures (PNG and SVG)."""
