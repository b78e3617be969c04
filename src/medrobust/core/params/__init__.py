"""Typed schema of params.yaml: one module per block; `schema.load_params` reads the file."""
