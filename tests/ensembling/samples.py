"""Answers of members that know the truth more or less well."""

from typing import Any

import numpy as np

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.sample import Sample
from tests.params import default_block


def settings(**changes: Any) -> EnsembleParams:
    return default_block(EnsembleParams, "ensemble", **{"temperature": False, **changes})


def draw(skills: list[float], *, seed: int = 0, patients: int = 20, slices: int = 4, classes: int = 3) -> Sample:
    """Members whose logits point to the truth so far, attacked half as far; each patient has one class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % classes, slices)
    truth, skill = np.eye(classes)[labels], np.array(skills)[:, None, None]
    noise = rng.normal(0, 1, (2, len(skills), len(labels), classes))
    logits = noise + np.stack([skill * truth, skill / 2 * truth])
    clean, robust = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    names = np.array([f"p{k // slices}" for k in range(len(labels))])
    return Sample(clean, robust, labels, names, [f"c{k}" for k in range(classes)])
