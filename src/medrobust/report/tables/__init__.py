"""Tables and text of the report, as strings that HTML, Markdown and LaTeX share."""
