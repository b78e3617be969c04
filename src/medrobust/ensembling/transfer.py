"""Transfer matrix: attack each model (the source) and evaluate all models on the attacked images."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.core import intervals, metrics
from medrobust.core.params.report import ReportParams
from medrobust.core.params.transfer import TransferParams
from medrobust.core.rates import share_ci
from medrobust.core.reliability import calibration
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models.ensemble import EnsembleClassifier
from medrobust.models.predict import batches, predictions_table, stacked_log_probabilities

BATCH = 64
#: Columns that `reliability.calibration` describes.
CALIBRATION = [
    "ece", "ece_null", "ece_null_high", "confidence_gap", "calibration_slope", "calibration_intercept",
]  # fmt: skip
#: Columns of the matrix. `source` is the attacked model, or one of the two names below; `judge` is the evaluated
#: model.
MATRIX = [
    "source", "judge", "accuracy", "low", "high", "log_loss", "log_loss_low", "log_loss_high", "brier",
    *CALIBRATION, "confidence_gap_low", "confidence_gap_high",
]  # fmt: skip
#: Sources that are no model: clean images, and for each member of the ensemble images that were made on it alone.
CLEAN, PER_MEMBER = "no attack", "per member"


@dataclass(frozen=True)
class TransferPredictions:
    """Log-probabilities, float64, of J models: `clean` J×n×K, `attacked` J×J×n×K by source and evaluated model."""

    clean: np.ndarray
    attacked: np.ndarray


def attack_and_evaluate(
    models: Sequence[nn.Module], subset: Subset, attacks: Sequence[Attack], seed: int
) -> TransferPredictions:
    """Attack each model (in eval mode) by `attacks_with_all_steps`; evaluate all models on the images of each."""
    device = next(models[0].parameters()).device
    clean, attacked = [], []
    for rows in batches(len(subset), BATCH):
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        seeds = image_seeds(subset.ids[rows], seed).to(device)
        prepared = [attack.for_images(subset, rows.tolist()) for attack in attacks]
        clean.append(stacked_log_probabilities(models, images))
        by_source = (strongest(source, prepared, images, labels, seeds) for source in models)
        attacked.append(torch.stack([stacked_log_probabilities(models, made) for made in by_source]))
    return TransferPredictions(torch.cat(clean, dim=1).numpy(), torch.cat(attacked, dim=2).numpy())


def combine_per_member(ensemble: EnsembleClassifier, own: np.ndarray) -> np.ndarray:
    """The ensemble's log-probabilities, n×K, when every member gets an image that was made on it alone.

    No single image does that to the ensemble, so that the result bounds its robustness neither from above nor
    from below. `own` holds log-probabilities, A×n×K, of each of the A active members on the images made on it.
    """
    with torch.no_grad():
        return deepcopy(ensemble.combiner).cpu().double()(torch.from_numpy(own)).numpy()


def matrix_table(
    names: Sequence[str], predictions: TransferPredictions, per_member: tuple[str, np.ndarray], subset: Subset,
    report: ReportParams,
) -> pd.DataFrame:  # fmt: skip
    """Table of `MATRIX`: every model on clean images, then on the images of every source model.

    `per_member` has the ensemble's name and the result of `combine_per_member`.
    """
    rows = []
    for source, by_model in [(CLEAN, predictions.clean), *zip(names, predictions.attacked, strict=True)]:
        rows += [_row(source, *cell, subset, report) for cell in zip(names, by_model, strict=True)]
    rows.append(_row(PER_MEMBER, *per_member, subset, report))
    return pd.DataFrame(rows, columns=MATRIX)


def _row(
    source: str, evaluated: str, logprobs: np.ndarray, subset: Subset, report: ReportParams
) -> dict[str, Any]:
    labels, right = subset.labels, logprobs.argmax(1) == subset.labels
    bootstrap: dict[str, Any] = {"resamples": report.bootstrap, "confidence": report.confidence}
    losses = -logprobs[np.arange(len(labels)), labels]
    low, high = share_ci(right, labels, subset.patients, report.confidence)
    fit = calibration(labels, logprobs, subset.patients, **bootstrap)
    gap_low, gap_high = fit["confidence_gap_ci"]
    loss_low, loss_high = intervals.mean_ci(losses, labels, subset.patients, **bootstrap)
    return {
        "source": source, "judge": evaluated,
        "accuracy": float(right.mean()), "low": low, "high": high,
        "log_loss": float(losses.mean()), "log_loss_low": loss_low, "log_loss_high": loss_high,
        "brier": metrics.brier(labels, logprobs), **{name: fit[name] for name in CALIBRATION},
        "confidence_gap_low": gap_low, "confidence_gap_high": gap_high,
    }  # fmt: skip


def transfer(
    models: Mapping[str, nn.Module], ensemble: tuple[str, EnsembleClassifier], active: Sequence[str],
    subset: Subset, suite: dict[str, Any], *, params: TransferParams, report: ReportParams, seed: int,
    train: Subset | None = None,
) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:  # fmt: skip
    """The matrix, its summary and `scores_table`, which the stage writes.

    All models are in eval mode. `active` names the ensemble's active members, in its order. `params.images` evenly
    spaced images of the subset are attacked with the resolved suite. `train` is for attacks that are fitted on
    images.
    """
    name, classifier = ensemble
    names, subset = [*models, name], subset.evenly_spaced(params.images)
    attacks = attacks_with_all_steps(suite, params.eps, train)
    predictions = attack_and_evaluate([*models.values(), classifier], subset, attacks, seed)
    own = np.stack([predictions.attacked[i, i] for i in map(names.index, active)])
    table = matrix_table(names, predictions, (name, combine_per_member(classifier, own)), subset, report)
    facts = {"suite": suite["name"], "norm": suite["norm"], "eps": params.eps, "n": len(subset)}
    facts["patients"] = len(np.unique(subset.patients))
    scores = scores_table(names, predictions, subset)
    if params.member_eps:
        members = [models[each] for each in active]
        facts["per_member"] = [
            per_member(classifier, members, subset, suite, eps, report, seed, train) for eps in params.member_eps
        ]
    return table, {**facts, "models": summary(table, names, name)}, scores


def per_member(
    ensemble: EnsembleClassifier, members: Sequence[nn.Module], subset: Subset, suite: dict[str, Any], eps: float,
    report: ReportParams, seed: int, train: Subset | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy of an ensemble at one radius, with its interval, when each active member gets an image of its own.

    See `combine_per_member` for what that is worth.
    """
    attacks = attacks_with_all_steps(suite, eps, train)
    own = [attack_and_evaluate([member], subset, attacks, seed).attacked[0, 0] for member in members]
    right = combine_per_member(ensemble, np.stack(own)).argmax(1) == subset.labels
    interval = share_ci(right, subset.labels, subset.patients, report.confidence)
    return {"eps": eps, "accuracy": float(right.mean()), "accuracy_ci": list(interval)}


def empty_transfer() -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """The matrix, the summary and the scores of a run with `transfer.images: 0`."""
    return pd.DataFrame(columns=MATRIX), {"n": 0}, pd.DataFrame(columns=["source", "judge"])


def scores_table(names: Sequence[str], predictions: TransferPredictions, subset: Subset) -> pd.DataFrame:
    """Log-probabilities of every model on clean images and on those that were made on it.

    The columns of `predictions_table`, and `source` and `judge` as in the matrix.
    """
    tables = [
        predictions_table(subset, "test", logprobs).assign(source=source, judge=name)
        for number, name in enumerate(names)
        for source, logprobs in (
            (CLEAN, predictions.clean[number]),
            (name, predictions.attacked[number, number]),
        )
    ]
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame, names: Sequence[str], ensemble: str) -> dict[str, Any]:
    """Per model the accuracy on its own images, and on those of the source that lowers it most, with intervals.

    The accuracy of `ensemble` with one image per member is under `per_member`.
    """
    cells = {(row["source"], row["judge"]): row for row in table.to_dict("records")}
    entries: dict[str, Any] = {}
    for evaluated in names:
        entry = _with_interval("own", cells[evaluated, evaluated])
        if others := [name for name in names if name != evaluated]:
            worst = min(others, key=lambda source: float(cells[source, evaluated]["accuracy"]))
            entry |= {"worst_source": worst, **_with_interval("worst", cells[worst, evaluated])}
        if evaluated == ensemble:
            entry |= _with_interval("per_member", cells[PER_MEMBER, evaluated])
        entries[evaluated] = entry
    return entries


def dvc_metrics(facts: Mapping[str, Any], ensemble: str) -> dict[str, float]:
    """The number that DVC shows: the ensemble's accuracy on its own images or on the worst source's, the lower."""
    row = facts.get("models", {}).get(ensemble)
    if row is None:
        return {}
    worst = min((name for name in ("own", "worst") if name in row), key=lambda name: float(row[name]))
    return {f"transfer@{facts['eps']:g}": intervals.round_to_interval(row[worst], row[f"{worst}_ci"])}


def _with_interval(name: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row["accuracy"], f"{name}_ci": [row["low"], row["high"]]}
