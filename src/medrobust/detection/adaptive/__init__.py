"""Adaptive attacks: attacks that know the detector, and their runs."""
