"""Risk and costs of one model against one suite, with and without a detector, as rows of tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core.params.detection import RiskParams
from medrobust.detection.measures import ScoredImages
from medrobust.detection.risk import (
    Prices,
    Unit,
    error_costs,
    expected_cost,
    mean_costs,
    published_risk,
    threshold_grid,
)

#: Number of candidate thresholds, which are also the points of a cost curve.
POINTS = 60
UNITS: tuple[Unit, ...] = ("image", "patient")
Row = dict[str, Any]


@dataclass(frozen=True)
class CleanAndAttacked:
    """The same images clean and attacked, with predictions of a model and scores of one detector."""

    clean: ScoredImages
    attacked: ScoredImages

    def costs(self, thresholds: np.ndarray, prices: Prices, unit: Unit) -> tuple[np.ndarray, ...]:
        """Mean cost of clean and of attacked images, and share of clean images rejected, at each threshold."""
        clean, rejected = mean_costs(self.clean, thresholds, prices, unit, attacked=False)
        return clean, mean_costs(self.attacked, thresholds, prices, unit, attacked=True)[0], rejected


@dataclass(frozen=True)
class CheapestThreshold:
    """The threshold with the lowest cost on validation images if `share` of all images is attacked."""

    unit: Unit
    share: float
    threshold: float


def published_measure(images: CleanAndAttacked, threshold: float) -> dict[str, Any]:
    """The published measure: `cases` (misclassified attacked images), and R and r without and with rejection."""
    clean, attacked = images.clean, images.attacked
    result: dict[str, Any] = {
        "cases": int(attacked.wrong.sum()),
        "attacked_accuracy": float(1 - attacked.wrong.mean()),
    }
    for name, limit in (("without", np.inf), ("with", threshold)):
        total, mean = published_risk(clean.wrong, clean.scores > limit, attacked.wrong, attacked.scores > limit)
        result |= {f"R_{name}": total, f"r_{name}": mean}
    return result


def prices_of(params: RiskParams, classes: int, *, ordered: bool) -> Prices:
    """The prices of params.yaml for a number of classes; `ordered` if the classes are grades."""
    return Prices(error_costs(classes, ordered, params.under, params.over), params.reject, params.reject_attacked)


def candidate_thresholds(val: CleanAndAttacked) -> np.ndarray:
    """Thresholds from which the cheapest is chosen: quantiles of the scores on validation images."""
    return threshold_grid(np.concatenate([val.clean.scores, val.attacked.scores]), POINTS)


def cheapest_thresholds(val: CleanAndAttacked, prices: Prices, shares: list[float]) -> list[CheapestThreshold]:
    """The cheapest threshold on validation images for each unit and share; ties go to the highest.

    The threshold is infinity where rejecting does not pay.
    """
    thresholds, cheapest = candidate_thresholds(val), []
    for unit in UNITS:
        clean, attacked, _ = val.costs(thresholds, prices, unit)
        for share in shares:
            costs = expected_cost(clean, attacked, share)
            best = len(costs) - 1 - int(costs[::-1].argmin())
            cheapest.append(CheapestThreshold(unit, share, float(thresholds[best])))
    return cheapest


def costs_by_share(test: CleanAndAttacked, thresholds: list[CheapestThreshold], prices: Prices) -> list[Row]:
    """Cost of the given thresholds on test images.

    Returns:
        One row (unit, share, threshold, cost_without, cost_with, clean_rejected) per threshold.
    """
    rows = []
    for chosen in thresholds:
        clean, attacked, rejected = test.costs(np.array([chosen.threshold, np.inf]), prices, chosen.unit)
        with_it, without = map(float, expected_cost(clean, attacked, chosen.share))
        row: Row = {"unit": chosen.unit, "share": chosen.share, "threshold": chosen.threshold}
        rows.append({**row, "cost_without": without, "cost_with": with_it, "clean_rejected": float(rejected[0])})
    return rows


def costs_by_threshold(test: CleanAndAttacked, thresholds: np.ndarray, prices: Prices) -> list[Row]:
    """Rows (unit, threshold, cost_clean, cost_attacked, clean_rejected) of the cost curve on test images.

    The curve of any share follows from it: (1 - share)·cost_clean + share·cost_attacked.
    """
    names = ("threshold", "cost_clean", "cost_attacked", "clean_rejected")
    return [
        {"unit": unit, **dict(zip(names, map(float, row), strict=True))}
        for unit in UNITS
        for row in zip(thresholds, *test.costs(thresholds, prices, unit), strict=True)
    ]
