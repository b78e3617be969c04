"""The constant answer: what always answering the largest class scores, which no attack and no corruption changes.

Every table and curve of robust accuracy shows it, because a model below it is worse than no model.
"""

from collections.abc import Sequence

from medrobust.report.run import Run
from medrobust.report.tables.table import number

#: The name of the row and of the line in a chart.
CONSTANT = "constant answer"
ACCURACY, BALANCED, AUROC, DROP = "accuracy", "balanced accuracy", "AUROC", "drop"


def constant_score(run: Run, measure: str, *, patients: bool = False) -> float | None:
    """The score of the constant answer on test images (or patients); None if it is not known or not defined."""
    if measure == ACCURACY:
        return run.constant_answer(patients=patients)
    classes = len(run.classes())
    return {BALANCED: 1 / classes, AUROC: 0.5, DROP: 0.0}.get(measure) if classes else None


def constant_row(run: Run, lead: Sequence[str], measures: Sequence[str], *, patients: bool = False) -> list[str]:
    """The row of a table: the name, the cells `lead`, and the score of each measure; a dash for any other text."""
    scores = (constant_score(run, measure, patients=patients) for measure in measures)
    return [CONSTANT, *lead, *map(number, scores)]
