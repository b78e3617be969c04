"""Cells of the report's tables: numbers and intervals as text, the same in every view."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medrobust.core.intervals import unanimous_margin

#: What stands where a number is missing or not defined.
NONE = "–"
#: An interval whose ends are shown as the same number.
FLAT = re.compile(r"\[(-?[\d.]+), \1\]")


@dataclass(frozen=True)
class Table:
    """A titled table; `note` says what a reader must know of its numbers, `folded` tables open on demand."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    folded: bool = False

    def markdown(self) -> str:
        """The table as GitHub reads it."""
        lines = [f"### {self.title}", "", _line(self.columns), _line("---" for _ in self.columns)]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def warned(self, confidence: float, patients: int | None = None) -> "Table":
        """The table with what `no_width` says of its cells in the note."""
        return replace(self, note=f"{self.note} {no_width(self.rows, confidence, patients)}".strip())


def number(value: float | None) -> str:
    """Three decimals, or a dash where there is no number (None, or NaN in a table)."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def ranged(value: float | None, low: float | None, high: float | None) -> str:
    """`0.712 [0.651, 0.770]`, or a dash; bounds have as many decimals as the value, so that they enclose it."""
    if value is None or math.isnan(value):
        return NONE
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return number(value)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def with_interval(record: dict[str, Any], name: str) -> str:
    """A value of a record and its interval, which stands beside it as `<name>_ci`."""
    return ranged(record.get(name), *(record.get(f"{name}_ci") or (None, None)))


def no_width(rows: Iterable[Sequence[str]], confidence: float, patients: int | None = None) -> str:
    """What an interval without width in these cells means; empty where there is none.

    Resampling within classes cannot leave a value that all images of each class share.

    Args:
        rows: of a table.
        confidence: of its intervals.
        patients: the fewest behind a cell, for the rate that 0 and 1 hide; None where cells are no rates.
    """
    flat = {end for row in rows for cell in row for end in FLAT.findall(cell)}
    if not flat:
        return ""
    said = "An interval without width is no certainty: resampling cannot leave what all images of a class share."
    if not patients or not flat & {"0.000", "1.000"}:
        return said
    hidden = unanimous_margin(patients, confidence)
    return f"{said} {patients} patients who all agree fit a true rate that is up to {hidden:.2f} away."


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
