"""Assemble and write the report as HTML, Markdown and LaTeX."""
