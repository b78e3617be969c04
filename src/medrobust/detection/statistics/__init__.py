"""Statistics that several detectors share: distances, logistic regression, standardisation."""
