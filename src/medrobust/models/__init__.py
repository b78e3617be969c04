"""Classifiers: build, save and load backbones and ensembles, and predict with them."""
