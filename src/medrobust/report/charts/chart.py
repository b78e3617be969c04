"""A line chart as plain data, which the page's script and the static figures draw alike."""

from dataclasses import dataclass
from typing import Any

from medrobust.report.run import Run
from medrobust.report.tables.constant import CONSTANT, constant_score

#: Ratio of the largest to the smallest radius above which the axis of radii is no longer linear.
WIDE = 20


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis; title and axis labels are text with units.

    `columns` and `rows` are a table of text for each x, shown at the slider's position; None = no slider.
    """

    name: str  # unique on the page
    title: str
    x: str
    y: str
    #: `name`, `colour` (index), `dashed`, `points`: each [x, y] or [x, y, low, high]; `loose`: points alone.
    series: list[dict[str, Any]]
    top: float | None = None  # upper end of the y axis; None uses the largest value
    mark: tuple[float, str] | None = None  # an x with its label, marked by a vertical line
    bend: float = 0.0  # width of the linear part of a wide x axis (asinh beyond it); 0 = all linear
    columns: tuple[str, ...] = ()
    rows: dict[str, list[list[str]]] | None = None
    floor: tuple[float, str] | None = None  # a y with its label, marked by a horizontal line


def bend(radii: list[float]) -> float:
    """The value up to which an axis of radii is linear; 0 if all of it is."""
    positive = [radius for radius in radii if radius > 0]
    return min(positive) if positive and max(positive) / min(positive) > WIDE else 0.0


def colour(run: Run, model: str) -> int:
    """A model's index in the palette, the same in every chart and figure."""
    return [*run.backbones, "ensemble"].index(model)


def constant_floor(run: Run, measure: str) -> tuple[float, str] | None:
    """What always answering the largest class scores, with its label; None if it is not known."""
    score = constant_score(run, measure)
    return (score, CONSTANT) if score else None
