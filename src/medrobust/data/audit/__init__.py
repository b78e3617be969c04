"""Audit of a split before training: patient overlap, duplicates, and suspected patients."""
