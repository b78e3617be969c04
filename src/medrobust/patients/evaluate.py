"""Fit a patient model, predict patients, and write its results on clean images."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.lineage import MADE_ON
from medrobust.core.metrics import classification_summary, dvc_metrics
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.ranking import auroc_ci
from medrobust.core.records import atomic_dir, write_json, write_metrics, write_table
from medrobust.core.runtime import device, say
from medrobust.data.store import SplitStore
from medrobust.models import checkpoint
from medrobust.models.card import weights_hash
from medrobust.models.patient import PatientModel, save_patient_model
from medrobust.patients.few_images import few_images
from medrobust.patients.fit import AggregateInputs, fit_patient_model
from medrobust.patients.subsets import PatientSubset, no_patient_unit, patient_groups


@dataclass(frozen=True)
class PatientOutputs:
    """Where the stage writes."""

    model: Path
    predictions: Path
    metrics: Path


def run_patient_stage(
    network: Path,
    splits: SplitStore,
    outs: PatientOutputs,
    params: PatientParams,
    report: ReportParams,
    *,
    seed: int,
) -> None:
    """Fit and evaluate; where the data have no patient unit, write files without results and the reason.

    Raises:
        UserError: the aggregate needs an order of the images that the data do not have.
    """
    reason = "patient.aggregate is none" if params.aggregate == "none" else no_patient_unit(splits)
    made_on = {"weights": weights_hash(network), **splits.hashes}
    if reason:
        _write_nothing(outs, reason, made_on)
        return
    classifier = checkpoint.load(network, device())
    ordered = params.aggregate == "gru"
    groups = {name: patient_groups(splits, name, ordered=ordered) for name in ("train", "val", "test")}
    channels = splits.store.header.channels
    model, epoch = fit_patient_model(classifier, groups["train"], groups["val"], params, channels, seed)
    facts = {"aggregate": params.aggregate, "hidden": params.hidden, "epoch": epoch}
    save_patient_model(outs.model, network, model, facts)
    tables = {name: predict_patients(model, groups[name]).assign(split=name) for name in ("val", "test")}
    predictions = pd.concat(tables.values(), ignore_index=True)
    predictions.attrs[MADE_ON] = made_on
    write_table(outs.predictions, predictions)
    summary = prediction_summary(
        tables["test"], model.classes, ordered=splits.store.header.ordered, resamples=report.bootstrap,
        confidence=report.confidence,
    )  # fmt: skip
    images = [group.images_per_row for group in groups["test"]]
    attacked = few_images(model, groups["test"], params, report, seed)
    record = {**facts, "images_per_patient": [min(images), max(images)], **summary, **attacked, MADE_ON: made_on}
    write_metrics(outs.metrics, record, dvc_metrics(summary))


def predict_patients(model: PatientModel, groups: list[PatientSubset]) -> pd.DataFrame:
    """Table of `patient`, `label`, `pred`, `images` and one `logprob_<k>` per class; one row per patient."""
    inputs = AggregateInputs.of(model, groups)
    return prediction_columns(groups, inputs.log_probabilities(deepcopy(model.aggregate).cpu()).numpy())


def prediction_columns(groups: list[PatientSubset], logprobs: np.ndarray) -> pd.DataFrame:
    """The table of `predict_patients` from log-probabilities n×K of the patients of all groups."""
    table = pd.DataFrame({
        "patient": np.concatenate([np.empty(0, dtype=str), *(group.ids for group in groups)]),
        "label": np.concatenate([np.empty(0, dtype=np.int64), *(group.labels for group in groups)]),
        "pred": logprobs.argmax(1),
        "images": [group.images_per_row for group in groups for _ in range(len(group))],
    })  # fmt: skip
    scores = pd.DataFrame(logprobs, columns=[f"logprob_{k}" for k in range(logprobs.shape[1])])
    return pd.concat([table, scores], axis=1)


def prediction_summary(
    table: pd.DataFrame, classes: list[str], *, ordered: bool, resamples: int, confidence: float
) -> dict[str, Any]:
    """`metrics.classification_summary` of predictions by patient or by image, and the interval of the AUROC.

    `table` has the columns `patient`, `label` and `logprob_<k>`. Intervals are over whole patients.
    """
    labels, patients = table["label"].to_numpy(), table["patient"].to_numpy().astype(str)
    logprobs = table[[f"logprob_{k}" for k in range(len(classes))]].to_numpy()
    intervals: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    summary = classification_summary(labels, logprobs, patients, classes, ordered=ordered, **intervals)
    return {**summary, "auroc_ci": auroc_ci(labels, logprobs, patients, **intervals)}


def _write_nothing(outs: PatientOutputs, reason: str, made_on: dict[str, str]) -> None:
    say(f"no patient unit: {reason}")
    with atomic_dir(outs.model) as temporary:
        card = {"patient": None, "not_fitted": reason, "sha256": made_on["weights"]}
        write_json(temporary / "card.json", card)
    write_table(outs.predictions, pd.DataFrame(columns=["patient", "split", "label", "pred"]))
    write_metrics(outs.metrics, {"not_fitted": reason, MADE_ON: made_on}, {"verdict": "no patient unit"})
