"""A corruption cell: one model on corrupted test images, written as predictions and metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.report import ReportParams
from medrobust.core.records import write_metrics, write_table
from medrobust.corruptions.evaluate import corrupted_predictions
from medrobust.corruptions.summary import Summary
from medrobust.data.store import Subset


@dataclass(frozen=True)
class CorruptionOutputs:
    """Paths that a cell writes: metrics, and a table with one row per image and prediction."""

    metrics: Path
    table: Path


def evaluate_corruptions(
    model: nn.Module, subset: Subset, suite: dict[str, Any], out: CorruptionOutputs, *, seed: int,
    report: ReportParams, made_on: dict[str, str],
) -> None:  # fmt: skip
    """Predict corrupted images (`suite` see corruptions/resolve.py), and write table and metrics."""
    names, severities = suite["corruptions"], suite["severities"]
    table = corrupted_predictions(model, subset, names, severities, draws=suite["draws"], seed=seed)
    table.attrs[MADE_ON] = made_on
    write_table(out.table, table)
    summary = Summary(table, subset.classes, resamples=report.bootstrap, confidence=report.confidence)
    record = {"modality": suite["modality"], "draws": suite["draws"], **summary.record()}
    shown = {
        "corrupted": round(record["mean_balanced_accuracy"], 2),
        "worst_corrupted": round_to_interval(
            record["worst"]["balanced_accuracy"], record["worst"]["balanced_accuracy_ci"]
        ),
    }
    write_metrics(out.metrics, {**record, MADE_ON: made_on}, shown)
