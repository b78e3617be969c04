"""What DVC's own views show: a few numbers of each model, and tables of all models for its plots."""

import math
from typing import Any

import pandas as pd

from medrobust.report.charts import curve_points, matrices, training_charts
from medrobust.report.collect import Run
from medrobust.report.tables import TRAINING

#: Verdicts of the checklist, the worst first.
ORDER = ("invalid", "unchecked", "suspect", "no problem found")


def summary_records(run: Run, eps: float) -> dict[str, dict[str, Any]]:
    """`<model>-<regime>` -> the few numbers that `dvc metrics` compares, rounded to what their intervals support.

    A robust accuracy is that of the radius nearest to `eps`; a number that is missing has no key.
    """
    records: dict[str, dict[str, Any]] = {}
    for model, regime in run.models():
        clean = run.clean(model, regime)
        row: dict[str, Any] = {}
        if "balanced_accuracy" in clean:
            row["balanced_accuracy"] = supported(clean["balanced_accuracy"], clean["balanced_accuracy_ci"])
        for suite in run.suites:
            key = (model, regime, suite)
            if radius := run.at(key, eps):
                record = run.attack[key]
                interval = record["robust_accuracy_ci"][radius]
                row[f"{suite} {radius}"] = supported(record["robust_accuracy"][radius], interval)
        if row:
            found = {run.verdict_of(model, regime, suite) for suite in run.suites}
            row["checklist"] = next(word for word in ORDER if word in found)
            records[f"{model}-{regime}"] = row
    return records


def supported(value: float, interval: list[float]) -> float:
    """The value at the decimal of the first digit that half its interval reaches (two decimals at least)."""
    half = (interval[1] - interval[0]) / 2
    return round(value, max(2, math.ceil(-math.log10(half)))) if half > 0 else round(value, 4)


def plot_tables(run: Run) -> dict[str, pd.DataFrame]:
    """Long tables for `dvc plots`, one row a point, so that any number of models and suites fits one plot.

    `robust_accuracy` has eps 0 as the clean accuracy; `training` has one row an epoch and measure; `confusion` one
    row a cell, with the share of the true class.
    """
    curves = [
        (f"{model}, {TRAINING[regime]}", suite, *point)
        for model, regime in run.models()
        for suite in run.suites
        for point in curve_points(run, (model, regime, suite))
    ]
    epochs = [
        (chart.title, line["name"], *point)
        for chart in training_charts(run)
        for line in chart.series
        for point in line["points"]
    ]
    cells = [
        (matrix.title, true, predicted, matrix.counts[i][j], matrix.rates[i][j])
        for matrix in matrices(run)
        for i, true in enumerate(matrix.classes)
        for j, predicted in enumerate(matrix.classes)
    ]
    return {
        "robust_accuracy": pd.DataFrame(curves, columns=["model", "suite", "eps", "accuracy", "low", "high"]),
        "training": pd.DataFrame(epochs, columns=["measure", "model", "epoch", "value"]),
        "confusion": pd.DataFrame(cells, columns=["model", "actual", "predicted", "images", "share"]),
    }
