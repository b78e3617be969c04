"""Tables of the report as rows of text, and tables for DVC plots."""
