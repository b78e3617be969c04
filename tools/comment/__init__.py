"""The comment of a pull request: what is compared (modules) and how it is rendered (comment.md.jinja)."""
