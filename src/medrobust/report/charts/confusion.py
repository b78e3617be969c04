"""Confusion matrices on clean test images."""

from dataclasses import dataclass

import pandas as pd

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of the classes that occur as truth or prediction, one row per true class.

    `rates` are shares of the true class; None in the row of a class that no image has.
    """

    title: str
    classes: list[str]
    counts: list[list[int]]
    rates: list[list[float | None]]


def matrices(run: Run) -> list[Matrix]:
    """The confusion matrix of every model, in the order of `run.confusion`."""
    classes, found = run.header.get("classes", []), []
    for (model, regime), table in run.confusion.items():
        seen = {*table["actual"], *table["predicted"]}
        names = [name for name in classes if name in seen] + sorted(seen - set(classes))
        counts = pd.crosstab(table["actual"], table["predicted"])
        rows = counts.reindex(index=names, columns=names, fill_value=0).to_numpy().tolist()
        rates = [[count / sum(row) if sum(row) else None for count in row] for row in rows]
        found.append(Matrix(f"{model}, {TRAINING[regime]}", names, rows, rates))
    return found
