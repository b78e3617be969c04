"""Tables of targeted attacks: how many images ended in their target class."""

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import Table, ranged
from medrobust.report.templates import table_note


def targeted_tables(run: Run, confidence: float) -> list[Table]:
    """One table per suite with targets: one row per model and target, one column per radius."""
    return [table for suite in run.suites if (table := _of_suite(run, suite, confidence)).rows]


def _of_suite(run: Run, suite: str, confidence: float) -> Table:
    records, grid = run.attacks.of_suite(suite)
    rows = []
    for (model, regime), record in records.items():
        for target, shares in record.get("targeted_success", {}).items():
            intervals = record["targeted_success_ci"][target]
            cells = [ranged(shares.get(eps), *(intervals.get(eps) or (None, None))) for eps in grid]
            count = str(record["targeted_n"][target])
            rows.append([model, TRAINING[regime], target, count, *cells, run.verdict_of(model, regime, suite)])
    note = table_note("targeted", confidence=confidence)
    columns = ["model", "training", "target", "n", *(f"ε = {eps}" for eps in grid), "checklist"]
    return Table(f"Targeted success: {suite}", columns, rows, note).with_warning()
