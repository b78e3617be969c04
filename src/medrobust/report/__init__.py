"""The report on a run, and model cards: collected results as tables, charts, figures and pages."""
