"""Finished models on other data: evaluated without training, in the pipeline or by `medrobust evaluate`."""
