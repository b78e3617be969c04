"""Risk and costs of one model against one suite, with and without a detector, as rows of tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core.params.detection import RiskParams
from medrobust.detection.measures import ScoredImages
from medrobust.detection.risk import (
    Prices,
    Unit,
    costliest,
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
    """The same images clean and attacked.

    `costly` are further attacked versions of each image; of these and `attacked`, the costliest counts for costs.
    """

    clean: ScoredImages
    attacked: ScoredImages
    costly: tuple[ScoredImages, ...] = ()

    def costs(self, thresholds: np.ndarray, prices: Prices, unit: Unit) -> tuple[np.ndarray, ...]:
        """Mean cost of clean and of attacked images, and share of clean images rejected, at each threshold."""
        clean, rejected = mean_costs(self.clean, thresholds, prices, unit, attacked=False)
        paid = []
        for threshold in thresholds:
            worst = costliest((self.attacked, *self.costly), threshold, prices)
            paid.append(mean_costs(worst, np.array([threshold]), prices, unit, attacked=True)[0][0])
        return clean, np.array(paid), rejected


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a detector, all chosen on validation images.

    Attributes:
        candidates: quantiles of the scores between -infinity and infinity, ascending.
        cheapest: (unit, share of attacked images) -> the candidate with the lowest cost; infinity where rejecting
            does not pay.
    """

    guard: float
    candidates: np.ndarray
    cheapest: dict[tuple[Unit, float], float]


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


def choose_thresholds(val: CleanAndAttacked, guard: float, prices: Prices, shares: list[float]) -> Thresholds:
    """The thresholds of a detector from validation images; among equally cheap candidates the highest."""
    candidates = threshold_grid(np.concatenate([val.clean.scores, val.attacked.scores]), POINTS)
    cheapest: dict[tuple[Unit, float], float] = {}
    for unit in UNITS:
        clean, attacked, _ = val.costs(candidates, prices, unit)
        for share in shares:
            costs = expected_cost(clean, attacked, share)
            cheapest[unit, share] = float(candidates[len(costs) - 1 - int(costs[::-1].argmin())])
    return Thresholds(guard, candidates, cheapest)


def costs_by_share(test: CleanAndAttacked, thresholds: Thresholds, prices: Prices) -> list[Row]:
    """Rows (unit, share, threshold, cost_without, cost_with, clean_rejected): the cheapest ones on test images."""
    rows = []
    for (unit, share), threshold in thresholds.cheapest.items():
        clean, attacked, rejected = test.costs(np.array([threshold, np.inf]), prices, unit)
        with_it, without = map(float, expected_cost(clean, attacked, share))
        row: Row = {"unit": unit, "share": share, "threshold": threshold}
        rows.append({**row, "cost_without": without, "cost_with": with_it, "clean_rejected": float(rejected[0])})
    return rows


def costs_by_threshold(test: CleanAndAttacked, thresholds: Thresholds, prices: Prices) -> list[Row]:
    """Rows (unit, threshold, cost_clean, cost_attacked, clean_rejected): the cost curve on test images.

    The curve of any share follows from it: (1 - share)·cost_clean + share·cost_attacked.
    """
    names = ("threshold", "cost_clean", "cost_attacked", "clean_rejected")
    return [
        {"unit": unit, **dict(zip(names, map(float, row), strict=True))}
        for unit in UNITS
        for row in zip(thresholds.candidates, *test.costs(thresholds.candidates, prices, unit), strict=True)
    ]
