"""Finished models in use: predict, explain, attack and evaluate images that no stage has prepared."""
