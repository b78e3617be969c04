"""Probabilities of patients after an attack that runs all its steps, for calibration and decisions."""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.attacks.base import frozen
from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.models.patient import PatientModel
from medrobust.models.predict import batches, stacked_log_probabilities
from medrobust.patients.attack import single_image_attack
from medrobust.patients.evaluate import prediction_columns
from medrobust.patients.subsets import PatientSubset


def attacked_predictions(
    model: PatientModel, groups: list[PatientSubset], suite: dict[str, Any], eps: float, *, count: int, seed: int
) -> pd.DataFrame:
    """What a model answers for patients, all of whose images a resolved suite attacks at once at one radius.

    No attack stops at its first success. Per patient the attacked version with the largest margin counts, as in
    the transfer matrix. At most `count` patients are attacked, evenly spaced in the order of the groups.

    Returns:
        The columns of `evaluate.predict_patients`; no rows if an attack of the suite acts on single images.
    """
    sizes = [len(group) for group in groups]
    chosen = np.unique(np.linspace(0, sum(sizes) - 1, min(count, sum(sizes))).round().astype(int))
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [
        group.take(chosen[(chosen >= start) & (chosen < start + size)] - start)
        for group, start, size in zip(groups, starts, sizes, strict=True)
    ]
    if single_image_attack(suite):
        parts = []
    attacks, device = attacks_with_all_steps(suite, eps), next(model.parameters()).device
    logprobs = [np.zeros((0, len(model.classes)))]
    with frozen(model):
        for part in parts:
            for rows in batches(len(part), part.rows_per_pass):
                images, labels, seeds = part.fetch(rows, seed, device)
                made = strongest(model, attacks, images, labels, seeds)
                logprobs.append(stacked_log_probabilities([model], made)[0].numpy())
    return prediction_columns(parts, np.concatenate(logprobs))
