"""Tables of all models for `dvc plots`."""

import pandas as pd

from medrobust.report.charts.confusion import matrices
from medrobust.report.charts.robustness import curve_points
from medrobust.report.charts.training import training_charts
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import ACCURACY, CONSTANT, constant_score


def plot_tables(run: Run) -> dict[str, pd.DataFrame]:
    """Long tables with one row per point, so that one plot holds any number of models and suites.

    `robust_accuracy` holds the clean accuracy at eps 0, and ends with the constant answer. `training` has one row
    per epoch and measure, `confusion` one row per cell, with the share of the true class.
    """
    curves = [
        (f"{model}, {TRAINING[regime]}", suite, *point)
        for model, regime in run.models()
        for suite in run.suites
        for point in curve_points(run, (model, regime, suite))
    ]
    constant = constant_score(run, ACCURACY)
    radii = {(suite, eps) for _, suite, eps, *_ in curves} if constant else set()
    curves += [(CONSTANT, suite, eps, constant, constant, constant) for suite, eps in sorted(radii)]
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
