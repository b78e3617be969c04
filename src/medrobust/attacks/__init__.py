"""Adversarial attacks: the attack contract, targets and regions, attack methods, and their evaluation."""
