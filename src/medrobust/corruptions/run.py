"""A corruption cell: one model on corrupted test images, written as predictions and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.report import ReportParams
from medrobust.core.records import write_metrics, write_table
from medrobust.corruptions.evaluate import corrupted_predictions
from medrobust.corruptions.summary import Summary
from medrobust.data.store import Subset


@dataclass(frozen=True)
class PatientGroups:
    """A model of patients, and test patients grouped by their number of images."""

    model: nn.Module
    groups: Sequence[Subset]


@dataclass(frozen=True)
class CorruptionOutputs:
    """Paths that a cell writes: metrics, and a table with one row per prediction of an image or a patient."""

    metrics: Path
    table: Path


def evaluate_corruptions(
    model: nn.Module, subset: Subset, patients: PatientGroups | None, suite: dict[str, Any],
    out: CorruptionOutputs, *, seed: int, report: ReportParams, made_on: dict[str, str],
) -> None:  # fmt: skip
    """Predict corrupted images (`suite` see corruptions/resolve.py), and write table and metrics.

    With `patients` the record has the same statistics of patients as `patient`.
    """

    def predict(net: nn.Module, rows: Subset) -> pd.DataFrame:
        names, severities = suite["corruptions"], suite["severities"]
        return corrupted_predictions(net, rows, names, severities, draws=suite["draws"], seed=seed)

    def summarise(table: pd.DataFrame) -> dict[str, Any]:
        return Summary(
            table, subset.classes, resamples=report.bootstrap, confidence=report.confidence
        ).record()  # fmt: skip

    tables = {"image": predict(model, subset)}
    record = {"modality": suite["modality"], "draws": suite["draws"], **summarise(tables["image"])}
    shown = headline(record)
    if patients:
        parts = [predict(patients.model, group) for group in patients.groups]
        tables["patient"] = pd.concat(parts, ignore_index=True)
        record["patient"] = summarise(tables["patient"])
        shown |= {f"patient_{name}": value for name, value in headline(record["patient"]).items()}
    table = pd.concat([part.assign(unit=unit) for unit, part in tables.items()], ignore_index=True)
    table.attrs[MADE_ON] = made_on
    write_table(out.table, table)
    write_metrics(out.metrics, {**record, MADE_ON: made_on}, shown)


def headline(record: dict[str, Any]) -> dict[str, float]:
    """What `dvc metrics` shows of a record: the mean over all corruptions and severities, and the worst case."""
    worst = record["worst"]
    return {
        "corrupted": round(record["mean_balanced_accuracy"], 2),
        "worst_corrupted": round_to_interval(worst["balanced_accuracy"], worst["balanced_accuracy_ci"]),
    }
