"""Confusion matrices on clean test images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of the classes that occur: counts, and shares of the true class (None if absent)."""

    title: str
    classes: list[str]
    counts: list[list[int]]
    rates: list[list[float | None]]


def matrices(run: Run) -> list[Matrix]:
    """The confusion matrix of every model."""
    found = []
    for (model, regime), table in run.confusion.items():
        names, counts = confusion_counts(table, run.header.get("classes", []))
        rates = [
            [float(count / total) if total else None for count in row]
            for row, total in zip(counts, counts.sum(1), strict=True)
        ]
        found.append(Matrix(f"{model}, {TRAINING[regime]}", names, counts.tolist(), rates))
    return found


def confusion_counts(table: pd.DataFrame, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """The classes that occur as truth or prediction, in the header's order, and int K×K counts (rows: truth)."""
    seen = {*table["actual"], *table["predicted"]}
    names = [name for name in classes if name in seen] + sorted(seen - set(classes))
    counts = pd.crosstab(table["actual"], table["predicted"]).reindex(index=names, columns=names, fill_value=0)
    return names, counts.to_numpy()
