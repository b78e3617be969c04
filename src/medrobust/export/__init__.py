"""Models in formats of other software, compared with the original on clean and attacked images."""
