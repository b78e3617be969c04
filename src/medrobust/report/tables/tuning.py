"""Tables of the hyper-parameter search."""

import math

from medrobust.report.run import Run
from medrobust.report.tables.table import NONE, Table, number


def tuning_table(run: Run) -> Table:
    """The chosen hyper-parameters of each backbone."""
    names = ["lr", "optimiser", "batch_size", "scheduler"]
    rows = []
    for backbone in run.backbones:
        best, study = run.training.chosen.get(backbone, {}), run.training.studies.get(backbone, {})
        cells = [f"{best[key]:.2e}" if key == "lr" and key in best else str(best.get(key, NONE)) for key in names]
        result = [number(study.get("best_val_balanced_accuracy")), str(study.get("trials", NONE))]
        rows.append([backbone, *cells, *result, str(study.get("pruned", 0)), str(study.get("fail", 0))])
    note = "Best validation: balanced accuracy on validation images at the end of the best trial."
    columns = ["model", *names, "best validation", "trials", "pruned", "failed"]
    return Table("Chosen hyper-parameters", columns, rows, note)


def trial_tables(run: Run) -> list[Table]:
    """Every trial of each backbone's search."""
    tables = []
    for backbone, trials in run.training.trials.items():
        rows = [[_cell(value) for value in row] for row in trials.itertuples(index=False)]
        tables.append(Table(f"Trials: {backbone}", [str(name) for name in trials.columns], rows, folded=True))
    return tables


def _cell(value: object) -> str:
    """A cell of a table that was read: at most four digits of a float, a dash for nothing."""
    if isinstance(value, float):
        return NONE if math.isnan(value) else f"{value:.4g}"
    return str(value)
