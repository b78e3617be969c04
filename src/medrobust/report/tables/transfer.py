"""The transfer matrix: how well each model classifies the images that were made on every other model."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from medrobust.report.run import CLEAN, SEPARATE, Run
from medrobust.report.tables.constant import CONSTANT
from medrobust.report.tables.table import NONE, Table, number, ranged
from medrobust.report.templates import table_note


@dataclass(frozen=True)
class Grid:
    """A table of shares that are shaded; `details` are shown under the pointer."""

    title: str
    corner: str
    rows: list[str]
    columns: list[str]
    rates: list[list[float]]
    details: list[list[str]]
    note: str = ""


def transfer_grids(run: Run) -> list[Grid]:
    """The transfer matrix as a heat map: one row per attacked model, one column per evaluated model."""
    return [_grid(run, suite, eps, matrix) for (suite, eps), matrix in run.ensemble.matrices.items()]


def _grid(run: Run, suite: str, eps: float, matrix: pd.DataFrame) -> Grid:
    cells, models = _cells(matrix), list(dict.fromkeys(matrix["judge"]))
    sources = [CLEAN, *models]
    rates = [[float(cells[source, model]["accuracy"]) for model in models] for source in sources]
    details = [[_detail(source, model, cells[source, model]) for model in models] for source in sources]
    note = table_note("transfer_grid", transfer=run.ensemble.transfer, suite=suite, eps=eps)
    title = f"Transfer: {suite}, ε {eps:g}"
    return Grid(title, "made on ↓ evaluated on →", sources, models, rates, details, note)


def _detail(source: str, model: str, row: dict[Any, Any]) -> str:
    images = "clean images" if source == CLEAN else f"images made on {source}"
    return f"{model} on {images}: {ranged(row['accuracy'], row['low'], row['high'])}"


def _cells(matrix: pd.DataFrame) -> dict[tuple[str, str], dict[Any, Any]]:
    """(attacked model, evaluated model) -> row of a transfer matrix."""
    return {(row["source"], row["judge"]): row for row in matrix.to_dict("records")}


def transfer_tables(run: Run, confidence: float) -> list[Table]:
    """The transfer matrix with its intervals."""
    tables, constant = [], number(_largest_share(run))
    for (suite, eps), matrix in run.ensemble.matrices.items():
        models, cells = list(dict.fromkeys(matrix["judge"])), _cells(matrix)
        rows = []
        for source in (CLEAN, *models, SEPARATE):
            found = [cells.get((source, model)) for model in models]
            rows.append([source, *(ranged(r["accuracy"], r["low"], r["high"]) if r else NONE for r in found)])
        rows.append([CONSTANT, *[constant] * len(models)])
        note = table_note("transfer", confidence=confidence, separate=SEPARATE)
        columns = ["images made on", *(f"evaluated on {model}" for model in models)]
        table = Table(f"Transfer with intervals: {suite}, ε {eps:g}", columns, rows, note, folded=True)
        tables.append(table.with_warning())
    if rows := [
        [f"{row['eps']:g}", ranged(row["accuracy"], *row["accuracy_ci"])]
        for row in run.ensemble.transfer.get("per_member", [])
    ]:
        rows.append([CONSTANT, constant])
        note = table_note("per_member", confidence=confidence)
        columns = ["ε", "accuracy of the ensemble"]
        tables.append(Table("Each member attacked alone", columns, rows, note, folded=True).with_warning())
    return tables


def _largest_share(run: Run) -> float | None:
    """What a constant answer scores on the images of the matrix; on all test images if it has no labels."""
    if run.answers.scores is None:
        return run.constant_answer()
    labels = run.answers.scores.drop_duplicates("id")["label"]
    return float(labels.value_counts(normalize=True).max())
