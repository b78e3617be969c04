"""Probabilities of patients after an attack that runs all its steps, for calibration and decisions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.attacks.base import frozen
from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.attacks.engine.suite import read_suite
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.transfer import TransferParams
from medrobust.core.records import write_table
from medrobust.core.runtime import device
from medrobust.data.store import SplitStore
from medrobust.models.card import not_fitted, weights_hash
from medrobust.models.patient import PatientModel, load_patient_model
from medrobust.models.predict import batches, stacked_log_probabilities
from medrobust.patients.attack import single_image_attack
from medrobust.patients.evaluate import prediction_columns
from medrobust.patients.subsets import PatientSubset, patient_groups


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


def write_attacked_predictions(
    folder: Path, splits: SplitStore, suite: Path, out: Path, params: TransferParams, *, seed: int
) -> None:  # fmt: skip
    """Write `attacked_predictions` of test patients; a table without rows if there are no patients to attack.

    Args:
        folder: of the model of patients.
        splits: the data.
        suite: folder of the resolved suite, which is not read if nothing is attacked.
        out: the Parquet file.
        params: radius and number of patients.
        seed: of the run.
    """
    table = pd.DataFrame(columns=["patient", "label", "pred"])
    made_on: dict[str, Any] = {**splits.hashes, "weights": weights_hash(folder)}
    if params.images and not not_fitted(folder):
        resolved, model = read_suite(suite), load_patient_model(folder, device())
        made_on["suite"] = suite_hash(resolved)
        table = attacked_predictions(
            model, patient_groups(splits, "test"), resolved, params.eps, count=params.images, seed=seed
        )
    table.attrs[MADE_ON] = made_on
    write_table(out, table)
