"""Tables of targeted attacks: how many images ended in their target class."""

from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, ranged


def targeted_tables(run: Run, confidence: float) -> list[Table]:
    """One table per suite with targets: one row per model and target, one column per radius."""
    return [table for suite in run.suites if (table := _of_suite(run, suite, confidence)).rows]


def _of_suite(run: Run, suite: str, confidence: float) -> Table:
    records = {key[:2]: record for key, record in run.attacks.records.items() if key[2] == suite}
    grid = sorted({eps for record in records.values() for eps in record["robust_accuracy"]}, key=float)
    rows = []
    for (model, regime), record in records.items():
        for target, shares in record.get("targeted_success", {}).items():
            intervals = record["targeted_success_ci"][target]
            cells = [ranged(shares.get(eps), *(intervals.get(eps) or (None, None))) for eps in grid]
            count = str(record["targeted_n"][target])
            rows.append([model, TRAINING[regime], target, count, *cells, run.verdict_of(model, regime, suite)])
    note = (
        "Share of images that ended in their target class within the radius. Counted are the n images that the "
        f"model classifies correctly and whose target is another class; {NONE} if there is none. Brackets are "
        f"{confidence:.0%} intervals over whole patients. Other errors count only in the table of the suite. A "
        "low share can be due to a weak attack as well as to a robust model: read the checklist beside it."
    )
    columns = ["model", "training", "target", "n", *(f"ε = {eps}" for eps in grid), "checklist"]
    return Table(f"Targeted success: {suite}", columns, rows, note).with_warning(confidence)
