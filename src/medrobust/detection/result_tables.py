"""The tables that a detection cell writes beside its metrics: scores per image, curves, risk and costs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from medrobust.core.records import atomic_dir, write_table
from medrobust.data.store import Subset
from medrobust.detection.cost_tables import CleanAndAttacked, Row
from medrobust.detection.measures import ScoredImages, curve_points, successful

#: Most thresholds of a ROC or precision-recall curve.
CURVE_POINTS = 100
#: Significant digits of the numbers in the tables for plots.
DIGITS = 6


@dataclass(frozen=True)
class RowLabel:
    """Which images and attacker a row is about.

    Attributes:
        attacker: whether the attacker knows the detector; the images of an aware attacker are the least suspicious
            ones of all attacks.
        images: `all` test images, or only those `paired` with images of aware attackers.
    """

    suite: str
    detector: str
    attacker: Literal["unaware", "aware"]
    images: Literal["all", "paired"]


@dataclass
class DetectionTables:
    """Rows of the tables of one cell."""

    curves: list[Row] = field(default_factory=list)
    risk: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    scores: list[pd.DataFrame] = field(default_factory=list)

    def add_scores(self, subset: Subset, images: str, scored: dict[str, ScoredImages]) -> None:
        """Add each detector's scores of some images (`clean`, a suite, or a suite and an adaptive attack)."""
        first = next(iter(scored.values()))
        table = pd.DataFrame({"id": subset.ids, "patient": subset.patients, "label": subset.labels})
        table = table.assign(images=images, pred=first.preds)
        self.scores.append(table.assign(**{f"score_{name}": part.scores for name, part in scored.items()}))

    def add_curves(self, label: RowLabel, images: CleanAndAttacked) -> None:
        """Add points of the ROC and precision-recall curves, of all attacked images and of the successful ones."""
        hit = successful(images.clean, images.attacked)
        for attacks, some in (("all", images.attacked), ("successful", images.attacked.where(hit))):
            if len(some):
                points = curve_points(images.clean.scores, some.scores, CURVE_POINTS)
                self.curves += [{**vars(label), "attacks": attacks, **point} for point in points]

    def add_costs(self, label: RowLabel, risk: list[Row], costs: list[Row]) -> None:
        """Add rows of `cost_tables.costs_by_share` and of `cost_tables.costs_by_threshold`."""
        self.risk += [{**vars(label), **row} for row in risk]
        self.costs += [{**vars(label), **row} for row in costs]

    def write(self, scores: Path, plots: Path) -> None:
        """Write the scores at full precision, and the tables for plots with `DIGITS` significant digits."""
        write_table(scores, pd.concat(self.scores, ignore_index=True))
        with atomic_dir(plots) as folder:
            for name in ("curves", "risk", "costs"):
                write_table(folder / f"{name}.csv", pd.DataFrame(getattr(self, name)).map(_rounded))


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
