"""Table of what the attacks cost, in exact counts."""

from medrobust.report.run import Run, method_label
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table


def cost_table(run: Run) -> Table:
    """Gradients and queries that each suite used on each model."""
    suites = run.suites
    attacked = [
        (model, regime, [run.attacks.records.get((model, regime, suite), {}) for suite in suites])
        for model, regime in run.models()
    ]
    for method in run.ensemble.attacked:
        records = [run.ensemble.attacks.get((method, suite), {}) for suite in suites]
        attacked.append((method_label(method), run.ensemble.regime, records))
    counts = ("gradient_evaluations", "queries")
    rows = [
        [model, TRAINING[regime], *(str(record.get(count, NONE)) for record in records for count in counts)]
        for model, regime, records in attacked
    ]
    columns = [
        "model",
        "training",
        *(f"{suite}, {count}" for suite in suites for count in ("gradients", "queries")),
    ]
    note = (
        "Sums over all images and radii, counted per image. Gradients: forward passes with a backward pass. "
        "Queries: forward passes alone."
    )
    return Table("Cost of the attacks", columns, rows, note)
