"""Ensembles: fit and compare ensemble methods, and measure how attacks transfer between models."""
