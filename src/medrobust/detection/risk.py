"""What errors and rejections cost: the published measure, and a general one. NumPy only.

The published measure (Li, Pan & Zhu 2020, equations 2 and 3) counts every error and every rejection as one and
has as many attacked images as clean ones. The general one prices errors by grade, rejections apart, and sweeps
the share of attacked images, because half of all images is not a clinic.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medrobust.detection.measures import Answers

Unit = Literal["image", "patient"]


def published_risk(
    clean_wrong: np.ndarray, clean_rejected: np.ndarray, adv_wrong: np.ndarray, adv_rejected: np.ndarray
) -> tuple[int, float]:
    """R = N_cln_inc + N_cln_rej + N_adv_inc (equation 2) and r = R/N (equation 3) of Li, Pan & Zhu 2020.

    Args:
        clean_wrong, clean_rejected: bool N; a rejected image counts once, as rejected.
        adv_wrong, adv_rejected: bool N, the same images attacked; a rejected one costs nothing.

    Returns:
        R, and r from 0 to 2.
    """
    total = int((clean_rejected | clean_wrong).sum() + (adv_wrong & ~adv_rejected).sum())
    return total, total / len(clean_wrong)


@dataclass(frozen=True)
class Prices:
    """Costs in units of one error of one grade.

    Attributes:
        errors: K×K, cost of answering j where i is true; 0 on the diagonal.
        reject: of rejecting a clean image or patient (somebody looks again).
        reject_attacked: of rejecting an attacked one.
    """

    errors: np.ndarray
    reject: float
    reject_attacked: float


def error_costs(classes: int, ordered: bool, under: float, over: float) -> np.ndarray:
    """K×K costs: |i - j| times `under` where the answer is too low a grade, `over` where too high.

    Without an order of the classes every error costs `over`.
    """
    grades = np.arange(classes)
    gap = grades[None, :] - grades[:, None]  # answer minus truth
    if not ordered:
        return np.where(gap == 0, 0.0, over)
    return np.where(gap < 0, -gap * under, gap * over)


def mean_costs(
    side: Answers, thresholds: np.ndarray, prices: Prices, unit: Unit, *, attacked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cost of an image or patient, and share rejected, at each threshold.

    A patient's answer is the class of the highest mean probability over the accepted images; a patient is
    rejected when more than half of the images are. The patient's grade is the commonest of the images.

    Args:
        side: all clean, or all attacked (a patient's images are attacked together); images whose score is
            above the threshold are rejected.
        thresholds: T; infinity = nothing is rejected.
        prices: costs.
        unit: who is counted.
        attacked: which price of a rejection applies.

    Returns:
        Costs and rejected shares, T each.
    """
    owners = np.arange(len(side.labels)) if unit == "image" else np.unique(side.patients, return_inverse=True)[1]
    count = owners.max() + 1
    votes = np.zeros((count, side.probabilities.shape[1]))
    np.add.at(votes, (owners, side.labels), 1)
    truth, size = votes.argmax(1), np.bincount(owners, minlength=count)
    price = prices.reject_attacked if attacked else prices.reject
    costs, shares = [], []
    for threshold in thresholds:
        accepted = side.scores <= threshold
        summed = np.zeros_like(votes)
        np.add.at(summed, owners[accepted], side.probabilities[accepted])
        rejected = np.bincount(owners[accepted], minlength=count) * 2 < size
        costs.append(np.where(rejected, price, prices.errors[truth, summed.argmax(1)]).mean())
        shares.append(rejected.mean())
    return np.array(costs), np.array(shares)


def expected(clean: np.ndarray, attacked: np.ndarray, share: float) -> np.ndarray:
    """(1 - share)·clean + share·attacked: the cost where that share of all is attacked."""
    return (1 - share) * clean + share * attacked


def thresholds_of(scores: np.ndarray, most: int) -> np.ndarray:
    """At most `most` quantiles of the scores, rising, from below all of them to infinity (reject none)."""
    inner = np.unique(np.quantile(scores, np.linspace(0, 1, most - 2)))
    return np.array([-np.inf, *inner, np.inf])
