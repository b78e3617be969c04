"""Report of a run: collect results, then build tables, charts, figures and the page, and publish models."""
