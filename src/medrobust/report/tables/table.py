"""The report's tables as text, and how numbers and intervals are written in them, the same in every view."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medrobust.core.text import markdown

#: Shown where a number is missing or not defined.
NONE = "–"
#: An interval whose bounds are shown as the same number.
FLAT = re.compile(r"\[(-?[\d.]+), \1\]")


@dataclass(frozen=True)
class Table:
    """A titled table; `note` explains its numbers, and a `folded` table opens on demand.

    With `places`, `(#name)` in a cell stands for the section of that name. With `cases`, `image 12` in a cell
    stands for the image of that number on the page of single images.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    folded: bool = False
    places: bool = False
    cases: bool = False

    def markdown(self) -> str:
        """Title, table and note in GitHub's Markdown."""
        return f"### {markdown(self.title)}\n\n{self.body()}"

    def body(self) -> str:
        """Table and note in GitHub's Markdown."""
        rule = "|".join(["", *[" --- "] * len(self.columns), ""])
        lines = [_line(self.columns), rule, *map(_line, self.rows)]
        return "\n".join([*lines, "", *([markdown(self.note), ""] if self.note else [])])

    def with_warning(self) -> "Table":
        """The table with the warning of `zero_width_warning` about its cells added to the note."""
        return replace(self, note=f"{self.note} {zero_width_warning(self.rows)}".strip())


def number(value: float | None) -> str:
    """Three decimals, or a dash if there is no number (None, or NaN in a table)."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def ranged(value: float | None, low: float | None, high: float | None) -> str:
    """`0.712 [0.651, 0.770]`, or a dash; bounds have as many decimals as the value, so that they enclose it."""
    if value is None or math.isnan(value):
        return NONE
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return number(value)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def with_interval(record: dict[str, Any], name: str) -> str:
    """A value of a record with its interval, which the record holds as `<name>_ci`."""
    return ranged(record.get(name), *(record.get(f"{name}_ci") or (None, None)))


def with_interval_at(record: dict[str, Any], name: str, key: str) -> str:
    """A value, with its interval, of a measure that a record holds by key (by radius, for example)."""
    return ranged(record.get(name, {}).get(key), *(record.get(f"{name}_ci", {}).get(key) or (None, None)))


def zero_width_warning(rows: Iterable[Sequence[str]]) -> str:
    """A warning about intervals of zero width in these cells; empty if there is none.

    Intervals of rates always have a width. Those of a bootstrap have none if all resamples give the same value.
    """
    if not any(FLAT.search(cell) for row in rows for cell in row):
        return ""
    return (
        "An interval of zero width does not mean certainty: all resamples of these patients give the same value, "
        "as few or perfectly ranked patients do."
    )


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
