"""Classifiers: build, checkpoint and load backbones and ensembles, and predict with them."""
