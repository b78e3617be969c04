"""Rows of the tables that a detection cell leaves beside its metrics: scores by image, curves, risks, costs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from medrobust.core.records import atomic_dir, write_table
from medrobust.data.store import Subset
from medrobust.detection.adaptive.runs import successful
from medrobust.detection.measures import Answers, curve_points
from medrobust.detection.pricing import Row, Sides

#: Thresholds of a drawn ROC or precision-recall curve.
CURVE_POINTS = 100
#: Significant digits of a number that is drawn.
DIGITS = 6


@dataclass(frozen=True)
class Place:
    """What a row is of.

    Attributes:
        suite, detector: names.
        attacker: whether the detector was known; an aware attacker's images are the least suspicious of all.
        images: `all` test images, or those `paired` with what aware attackers made of them.
    """

    suite: str
    detector: str
    attacker: Literal["unaware", "aware"]
    images: Literal["all", "paired"]


@dataclass
class Tables:
    """Rows that the cell's tables are written from."""

    curves: list[Row] = field(default_factory=list)
    risk: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    scores: list[pd.DataFrame] = field(default_factory=list)

    def note(self, subset: Subset, images: str, said: dict[str, Answers]) -> None:
        """Keep every detector's score of some images (`clean`, a suite, or a suite and an adaptive attack)."""
        first = next(iter(said.values()))
        table = pd.DataFrame({"id": subset.ids, "patient": subset.patients, "label": subset.labels})
        table = table.assign(images=images, pred=first.preds)
        self.scores.append(table.assign(**{f"score_{name}": part.scores for name, part in said.items()}))

    def draw(self, place: Place, sides: Sides) -> None:
        """Points of the ROC and precision-recall curves, of all attacked images and of the successful ones."""
        hit = successful(sides.clean, sides.attacked)
        for attacks, some in (("all", sides.attacked), ("successful", sides.attacked.where(hit))):
            if len(some):
                points = curve_points(sides.clean.scores, some.scores, CURVE_POINTS)
                self.curves += [{**vars(place), "attacks": attacks, **point} for point in points]

    def price(self, place: Place, risk: list[Row], costs: list[Row]) -> None:
        """Rows of `pricing.paid` and of `pricing.by_threshold`."""
        self.risk += [{**vars(place), **row} for row in risk]
        self.costs += [{**vars(place), **row} for row in costs]

    def write(self, scores: Path, plots: Path) -> None:
        """The scores in full, and the tables to draw in `DIGITS` significant digits."""
        write_table(scores, pd.concat(self.scores, ignore_index=True))
        with atomic_dir(plots) as folder:
            for name in ("curves", "risk", "costs"):
                write_table(folder / f"{name}.csv", pd.DataFrame(getattr(self, name)).map(_short))


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
