"""The sample size: what the test set can tell now, and how many patients more precise numbers need."""

from medrobust.core.sample_size import half_width, patients_needed
from medrobust.report.run import Run
from medrobust.report.tables.table import NONE, Table
from medrobust.report.templates import table_note

#: Half-widths for which the needed patients are told.
WISHED = (0.10, 0.05)


def sample_size_table(run: Run, confidence: float) -> Table:
    """Half-width of each recall and of balanced accuracy, and the patients of each class that others need."""
    sample, rows = run.sample, []
    if sample is None:
        return Table("Sample size", [], [])
    classes = {name: count for name, count in sample.by_class.items() if count}
    needed = [
        [_count(patients_needed(wish, sample.rate, sample.cluster, confidence, classes=k)) for wish in WISHED]
        for k in (1, len(classes))
    ]
    for name, count in classes.items():
        half = half_width(sample.rate, count, sample.cluster, confidence)
        rows.append([f"recall {name}", str(count), f"±{half:.3f}", *needed[0]])
    rows.append(["balanced accuracy", str(sum(classes.values())), f"±{sample.half_width:.3f}", *needed[1]])
    columns = ["measure", "test patients", "half-width"]
    columns += [f"patients of each class for ±{wish:.2f}" for wish in WISHED]
    note = table_note("sample_size", sample=sample, confidence=confidence)
    return Table("Sample size", columns, rows, note)


def _count(patients: int | None) -> str:
    return NONE if patients is None else str(patients)
