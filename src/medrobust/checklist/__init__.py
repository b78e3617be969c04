"""Checks that detect unreliable models and unreliable robustness evaluations."""
