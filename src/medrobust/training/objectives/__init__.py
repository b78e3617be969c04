"""Training objectives, one function each."""
