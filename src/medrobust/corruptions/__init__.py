"""Errors of acquisition (motion, noise, exposure, ...) in five severities, and models evaluated on them."""
