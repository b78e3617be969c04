"""The risk of one model against one suite, with and without each detector: tables from scores and logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.detection.measures import Answers
from medrobust.detection.risk import (
    Judged,
    Prices,
    Unit,
    error_costs,
    expected,
    mean_costs,
    published_risk,
    thresholds_of,
)
from medrobust.params.detection import RiskParams

#: Thresholds of a risk curve.
POINTS = 60
UNITS: tuple[Unit, ...] = ("image", "patient")


@dataclass(frozen=True)
class Sides:
    """The same images clean and attacked, with what one detector scores and the calibrated probabilities, n×K."""

    clean: Answers
    attacked: Answers
    clean_probabilities: np.ndarray
    attacked_probabilities: np.ndarray

    def judged(self) -> tuple[Judged, Judged]:
        """Both sides as the risk takes them."""
        pairs = ((self.clean, self.clean_probabilities), (self.attacked, self.attacked_probabilities))
        first, second = (Judged(a.labels, p, a.scores, a.patients) for a, p in pairs)
        return first, second


def published(sides: Sides, threshold: float) -> dict[str, Any]:
    """The published measure: `cases` (attacked images misread), and R and r without and with rejection."""
    clean, attacked = sides.clean, sides.attacked
    wrong = (clean.preds != clean.labels, attacked.preds != attacked.labels)
    result: dict[str, Any] = {"cases": int(wrong[1].sum()), "attacked_accuracy": float(1 - wrong[1].mean())}
    for name, limit in (("without", np.inf), ("with", threshold)):
        total, share = published_risk(wrong[0], clean.scores > limit, wrong[1], attacked.scores > limit)
        result |= {f"R_{name}": total, f"r_{name}": share}
    return result


def priced(
    val: Sides, test: Sides, params: RiskParams, *, ordered: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cheapest threshold for each share, chosen on validation patients and paid on test ones.

    Returns:
        Rows of (unit, share, threshold, cost_without, cost_with, clean_rejected), and rows of the risk curve on
        test (unit, threshold, cost_clean, cost_attacked, clean_rejected), from which the curve of any share
        follows: (1 - share)·cost_clean + share·cost_attacked.
    """
    prices = Prices(
        error_costs(val.clean_probabilities.shape[1], ordered, params.under, params.over),
        params.reject,
        params.reject_attacked,
    )
    scores = np.concatenate([val.clean.scores, val.attacked.scores])
    thresholds = thresholds_of(scores, POINTS)
    sweep, curve = [], []
    for unit in UNITS:
        on_val = [
            mean_costs(side, thresholds, prices, unit, attacked=flag)
            for side, flag in zip(val.judged(), (False, True), strict=True)
        ]
        on_test = [
            mean_costs(side, thresholds, prices, unit, attacked=flag)
            for side, flag in zip(test.judged(), (False, True), strict=True)
        ]
        for share in params.shares:
            # Of equal costs the highest threshold: reject no more than pays.
            costs = expected(on_val[0][0], on_val[1][0], share)
            best = len(costs) - 1 - int(costs[::-1].argmin())
            paid = expected(on_test[0][0], on_test[1][0], share)
            row = {"unit": unit, "share": share, "threshold": float(thresholds[best])}
            row |= {"cost_without": float(paid[-1]), "cost_with": float(paid[best])}
            sweep.append({**row, "clean_rejected": float(on_test[0][1][best])})
        names = ("threshold", "cost_clean", "cost_attacked", "clean_rejected")
        columns = zip(thresholds, on_test[0][0], on_test[1][0], on_test[0][1], strict=True)
        curve += [{"unit": unit, **dict(zip(names, map(float, row), strict=True))} for row in columns]
    return sweep, curve
