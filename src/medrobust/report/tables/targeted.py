"""The report's tables of attacks with a target: how many images ended in the class that was wanted."""

from medrobust.report.collect import Run
from medrobust.report.tables.cells import NONE, Table, ranged
from medrobust.report.tables.models import TRAINING


def targeted_tables(run: Run, confidence: float) -> list[Table]:
    """One table a suite that has a target, a row a model and goal, a column a radius; [] without such suites."""
    return [table for suite in run.suites if (table := _of_suite(run, suite, confidence)).rows]


def _of_suite(run: Run, suite: str, confidence: float) -> Table:
    records = {key[:2]: record for key, record in run.attack.items() if key[2] == suite}
    grid = sorted({eps for record in records.values() for eps in record["robust_accuracy"]}, key=float)
    rows = []
    for (model, regime), record in records.items():
        for goal, shares in record.get("targeted_success", {}).items():
            intervals = record["targeted_success_ci"][goal]
            cells = [ranged(shares.get(eps), *(intervals.get(eps) or (None, None))) for eps in grid]
            asked = str(record["targeted_n"][goal])
            rows.append([model, TRAINING[regime], goal, asked, *cells, run.verdict_of(model, regime, suite)])
    note = (
        "Share of the images that the model answers rightly, and whose target is another class, that ended in "
        f"their target within the radius; brackets are {confidence:.0%} intervals over whole patients, {NONE} "
        "stands where no image has such a target. Any other wrong answer counts in the table of the suite alone. "
        "A low share is a claim about the attack as much as about the model: read the checklist beside it."
    )
    columns = ["model", "training", "target", "n", *(f"ε = {eps}" for eps in grid), "checklist"]
    return Table(f"Targeted success: {suite}", columns, rows, note).warned(confidence)
