"""Detectors, one module each, and the distances that they share."""
