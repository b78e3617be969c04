"""Tables of all models for DVC's own plots."""

import pandas as pd

from medrobust.report.charts.models import curve_points, matrices, training_charts
from medrobust.report.collect import Run
from medrobust.report.tables.models import TRAINING


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
