"""Folders with weights and model cards, ready to share."""
