"""Paired differences between models: a matrix per kind of images, all pairs, and the gain of robust training."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass

from medrobust.core.paired import Difference
from medrobust.report.comparisons import gains_of_robust_training
from medrobust.report.run import Comparison, Run, name_of
from medrobust.report.tables.table import NONE, Table
from medrobust.report.templates import table_note

#: In the order in which the page shows them.
UNITS = ("patient", "image")


@dataclass(frozen=True)
class Cell:
    """A difference in a matrix: its value and interval as text, its size, and what the pointer shows."""

    value: str
    interval: str
    size: float  # absolute, for the shade
    clear: bool  # whether the corrected test finds a difference
    detail: str


@dataclass(frozen=True)
class Contrast:
    """A lower triangle of differences, row minus column."""

    title: str
    rows: list[str]
    columns: list[str]
    cells: list[list[Cell]]  # row k has k + 1 cells
    note: str = ""
    folded: bool = False


def signed(value: float) -> str:
    """Two decimals with a sign, which is a minus and no hyphen."""
    return f"{value:+.2f}".replace("-", "−")


def difference(found: Difference) -> str:
    """`+0.120 [0.020, 0.210]`."""
    return f"{found.value:+.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def contrasts(run: Run, confidence: float) -> list[Contrast]:
    """The matrix of every comparison, by patient first; those by image are folded where there are both."""
    by_unit = {unit: [found for found in run.comparisons if found.unit == unit] for unit in UNITS}
    return [
        _contrast(comparison, confidence, folded=unit == "image" and bool(by_unit["patient"]))
        for unit, comparisons in by_unit.items()
        for comparison in comparisons
    ]


def _contrast(comparison: Comparison, confidence: float, *, folded: bool) -> Contrast:
    names = [name_of(*model) for model in comparison.models]
    cells = [
        [_cell(comparison, number, column, confidence) for column in range(number)]
        for number in range(1, len(names))
    ]
    note = table_note("contrast", confidence=confidence, tests=len(comparison.pairs), comparison=comparison)
    title = f"Difference in {comparison.measure}, {comparison.images}, by {comparison.unit}"
    return Contrast(title, names[1:], names[:-1], cells, note, folded)


def _cell(comparison: Comparison, row: int, column: int, confidence: float) -> Cell:
    models = comparison.models[row], comparison.models[column]
    found = comparison.pairs[models]
    low, high = (signed(end) for end in found.interval)
    detail = f"{name_of(*models[0])} minus {name_of(*models[1])}: {difference(found)}, "
    detail += f"p = {found.p:.2g}, corrected {found.p_holm:.2g}"
    clear = found.p_holm < 1 - confidence
    return Cell(signed(found.value), f"{low} to {high}", min(abs(found.value), 1.0), clear, detail)


def pairs_table(run: Run, confidence: float) -> Table:
    """Every pair of every comparison with its test."""
    rows = [
        [comparison.unit, comparison.images, comparison.measure, name_of(*first), name_of(*second),
         difference(found), *tests(found)]
        for comparison in run.comparisons
        for (first, second), found in comparison.pairs.items()
    ]  # fmt: skip
    columns = ["unit", "images", "measure", "model", "minus", "difference", "p", "p, corrected"]
    note = table_note("pairs", confidence=confidence)
    return Table("All pairs of models", columns, rows, note, folded=True).with_warning()


def robust_training_table(run: Run, confidence: float) -> Table:
    """What adversarial training changes, by backbone and unit: clean, and under every suite."""
    gains = {unit: gains_of_robust_training(run, unit) for unit in UNITS}
    rows = [
        [backbone, unit, images, difference(found), *tests(found)]
        for unit, family in gains.items()
        for (backbone, images), found in family.items()
    ]
    columns = ["model", "unit", "images", "adversarial − clean training", "p", "p, corrected"]
    note = table_note("robust_training", confidence=confidence, families=_sizes(gains))
    return Table("What adversarial training changes", columns, rows, note).with_warning()


def corruption_gains_table(run: Run, confidence: float) -> Table:
    """What adversarial training changes under corruptions, over all severities, by image and by patient."""
    gains = run.corruptions.gains
    rows = []
    for backbone, name in dict.fromkeys(key for family in gains.values() for key in family):
        found = [gains.get(unit, {}).get((backbone, name)) for unit in UNITS]
        cells = [[difference(pair), *tests(pair)] if pair else [NONE] * 3 for pair in found]
        rows.append([backbone, name.replace("_", " "), *(cell for part in cells for cell in part)])
    columns = ["model", "corruption"]
    columns += [f"{word}{name}" for name in UNITS for word in ("by ", "p, ", "p corrected, ")]
    note = table_note("corruption_gains", confidence=confidence, families=_sizes(gains))
    return Table("What adversarial training changes under corruptions", columns, rows, note).with_warning()


def _sizes(families: Mapping[str, Sized]) -> str:
    """`6 tests by patient and 6 tests by image`: the number of tests of each family."""
    return " and ".join(f"{len(families[unit])} tests by {unit}" for unit in UNITS if families.get(unit))


def tests(found: Difference) -> list[str]:
    """The p-value and the corrected one."""
    return [f"{found.p:.2g}", f"{found.p_holm:.2g}"]
