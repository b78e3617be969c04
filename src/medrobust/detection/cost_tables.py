"""The risk of one model against one suite, with and without a detector: rows of tables from answers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core.params.detection import RiskParams
from medrobust.detection.measures import Answers
from medrobust.detection.risk import (
    Prices,
    Unit,
    error_costs,
    expected,
    mean_costs,
    published_risk,
    thresholds_of,
)

#: Thresholds among which the cheapest is sought, and points of a curve of costs.
POINTS = 60
UNITS: tuple[Unit, ...] = ("image", "patient")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sides:
    """The same images clean and attacked, as a model and one detector answer them."""

    clean: Answers
    attacked: Answers

    def costs(self, thresholds: np.ndarray, prices: Prices, unit: Unit) -> tuple[np.ndarray, ...]:
        """Mean cost of the clean and of the attacked, and share of the clean rejected, at each threshold."""
        clean, rejected = mean_costs(self.clean, thresholds, prices, unit, attacked=False)
        return clean, mean_costs(self.attacked, thresholds, prices, unit, attacked=True)[0], rejected


@dataclass(frozen=True)
class Choice:
    """The threshold that is cheapest on validation images where `share` of all is attacked."""

    unit: Unit
    share: float
    threshold: float


def published(sides: Sides, threshold: float) -> dict[str, Any]:
    """The published measure: `cases` (attacked images misread), and R and r without and with rejection."""
    clean, attacked = sides.clean, sides.attacked
    result: dict[str, Any] = {
        "cases": int(attacked.wrong.sum()),
        "attacked_accuracy": float(1 - attacked.wrong.mean()),
    }
    for name, limit in (("without", np.inf), ("with", threshold)):
        total, mean = published_risk(clean.wrong, clean.scores > limit, attacked.wrong, attacked.scores > limit)
        result |= {f"R_{name}": total, f"r_{name}": mean}
    return result


def prices_of(params: RiskParams, classes: int, *, ordered: bool) -> Prices:
    """The prices of params.yaml for so many classes."""
    return Prices(error_costs(classes, ordered, params.under, params.over), params.reject, params.reject_attacked)


def candidates(val: Sides) -> np.ndarray:
    """Thresholds among which the cheapest is sought: quantiles of the scores on validation images."""
    return thresholds_of(np.concatenate([val.clean.scores, val.attacked.scores]), POINTS)


def cheapest(val: Sides, prices: Prices, shares: list[float]) -> list[Choice]:
    """The cheapest threshold on validation for each unit and share; of equal ones the highest.

    Infinity where rejecting does not pay.
    """
    thresholds, found = candidates(val), []
    for unit in UNITS:
        clean, attacked, _ = val.costs(thresholds, prices, unit)
        for share in shares:
            costs = expected(clean, attacked, share)
            best = len(costs) - 1 - int(costs[::-1].argmin())
            found.append(Choice(unit, share, float(thresholds[best])))
    return found


def paid(test: Sides, choices: list[Choice], prices: Prices) -> list[Row]:
    """What the choices cost on test images.

    Returns:
        A row (unit, share, threshold, cost_without, cost_with, clean_rejected) a choice.
    """
    rows = []
    for choice in choices:
        thresholds = np.array([choice.threshold, np.inf])
        clean, attacked, rejected = test.costs(thresholds, prices, choice.unit)
        with_it, without = map(float, expected(clean, attacked, choice.share))
        row: Row = {"unit": choice.unit, "share": choice.share, "threshold": choice.threshold}
        rows.append({**row, "cost_without": without, "cost_with": with_it, "clean_rejected": float(rejected[0])})
    return rows


def by_threshold(test: Sides, thresholds: np.ndarray, prices: Prices) -> list[Row]:
    """Rows (unit, threshold, cost_clean, cost_attacked, clean_rejected) of the curve of costs on test images.

    The curve of any share follows from it: (1 - share)·cost_clean + share·cost_attacked.
    """
    names = ("threshold", "cost_clean", "cost_attacked", "clean_rejected")
    return [
        {"unit": unit, **dict(zip(names, map(float, row), strict=True))}
        for unit in UNITS
        for row in zip(thresholds, *test.costs(thresholds, prices, unit), strict=True)
    ]
