"""Random predictions of members with given skills."""

from typing import Any

import numpy as np

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.member_predictions import MemberPredictions
from tests.params import default_block


def settings(**changes: Any) -> EnsembleParams:
    return default_block(EnsembleParams, "ensemble", **{"temperature": False, **changes})


def draw(
    skills: list[float], *, seed: int = 0, patients: int = 20, slices: int = 4, classes: int = 3
) -> MemberPredictions:
    """Members whose logit of the true class is raised by their skill, and by half of it if attacked.

    Each patient has one class.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % classes, slices)
    truth, skill = np.eye(classes)[labels], np.array(skills)[:, None, None]
    noise = rng.normal(0, 1, (2, len(skills), len(labels), classes))
    logits = noise + np.stack([skill * truth, skill / 2 * truth])
    clean, robust = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    names = np.array([f"p{k // slices}" for k in range(len(labels))])
    return MemberPredictions(clean, robust, labels, names, [f"c{k}" for k in range(classes)])
