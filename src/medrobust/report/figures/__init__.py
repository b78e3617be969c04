"""Static figures, drawn with matplotlib."""
