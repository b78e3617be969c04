"""The cost of errors and rejections: the published measure, and a general one (docs/detection.md). NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medrobust.detection.measures import ScoredImages

Unit = Literal["image", "patient"]


def published_risk(
    clean_wrong: np.ndarray, clean_rejected: np.ndarray, adv_wrong: np.ndarray, adv_rejected: np.ndarray
) -> tuple[int, float]:
    """R = N_cln_inc + N_cln_rej + N_adv_inc and r = R/N of Li, Pan & Zhu 2020 (equations 2 and 3); r <= 2.

    The arguments are bool N, for the same images clean and attacked. A rejected clean image counts once, as
    rejected; a rejected attacked image costs nothing.
    """
    total = int((clean_rejected | clean_wrong).sum() + (adv_wrong & ~adv_rejected).sum())
    return total, total / len(clean_wrong)


@dataclass(frozen=True)
class Prices:
    """Costs in units of one error of one grade; `errors[i, j]` (K×K) of predicting j where i is true."""

    errors: np.ndarray
    reject: float
    reject_attacked: float


def error_costs(classes: int, ordered: bool, under: float, over: float) -> np.ndarray:
    """K×K costs: |i - j| times `under` where the predicted grade is too low, times `over` where it is too high.

    If the classes have no order, every error costs `over`.
    """
    grades = np.arange(classes)
    gap = grades[None, :] - grades[:, None]  # prediction minus truth
    if not ordered:
        return np.where(gap == 0, 0.0, over)
    return np.where(gap < 0, -gap * under, gap * over)


def mean_costs(
    images: ScoredImages, thresholds: np.ndarray, prices: Prices, unit: Unit, *, attacked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cost per image or patient, and share rejected, at each of T thresholds; infinity rejects nothing.

    Images, all clean or all attacked, are rejected if their score is above the threshold. The prediction for a
    patient is the class with the highest mean probability over the accepted images. A patient is rejected when
    more than half of the images are. The true class of a patient is the majority label of the images; ties go to
    the lowest index.
    """
    if unit == "image":
        owners = np.arange(len(images.labels))
    else:
        owners = np.unique(images.patients, return_inverse=True)[1]
    count = owners.max() + 1
    label_counts = np.zeros((count, images.probabilities.shape[1]))
    np.add.at(label_counts, (owners, images.labels), 1)
    truth, size = label_counts.argmax(1), np.bincount(owners, minlength=count)
    price = prices.reject_attacked if attacked else prices.reject
    costs, shares = [], []
    for threshold in thresholds:
        accepted = images.scores <= threshold
        summed = np.zeros_like(label_counts)
        np.add.at(summed, owners[accepted], images.probabilities[accepted])
        rejected = np.bincount(owners[accepted], minlength=count) * 2 < size
        costs.append(np.where(rejected, price, prices.errors[truth, summed.argmax(1)]).mean())
        shares.append(rejected.mean())
    return np.array(costs), np.array(shares)


def costliest(versions: Sequence[ScoredImages], threshold: float, prices: Prices) -> ScoredImages:
    """Per image the attacked version that costs most at a threshold; of several, the least suspicious."""
    scores = np.stack([version.scores for version in versions])
    paid = np.stack([prices.errors[version.labels, version.preds] for version in versions])
    paid = np.where(scores <= threshold, paid, prices.reject_attacked)
    best = np.lexsort((scores, -paid), axis=0)[0], np.arange(len(scores[0]))
    probabilities = np.stack([version.probabilities for version in versions])
    return ScoredImages(versions[0].labels, probabilities[best], versions[0].patients, scores[best])


def expected_cost(clean: np.ndarray, attacked: np.ndarray, share: float) -> np.ndarray:
    """(1 - share)·clean + share·attacked: the mean cost if that share of all images is attacked."""
    return (1 - share) * clean + share * attacked


def threshold_grid(scores: np.ndarray, most: int) -> np.ndarray:
    """At most `most` thresholds, ascending: -infinity (reject all), quantiles of the scores, infinity."""
    inner = np.unique(np.quantile(scores, np.linspace(0, 1, most - 2)))
    return np.array([-np.inf, *inner, np.inf])
