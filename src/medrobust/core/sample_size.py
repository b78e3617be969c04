"""What a test set of patients with several images can tell, and how many patients a wish needs. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medrobust.core.rates import PatientCounts, exact_interval

#: Chance of finding the smallest difference that a test set is said to tell.
POWER = 0.8
#: More patients of a class than this are not looked for.
MOST = 100_000


@dataclass(frozen=True)
class Clustering:
    """How alike the answers on images of one patient are.

    Attributes:
        images: mean number of images of a patient, each image counted once (sum of squares / sum).
        correlation: between the answers on two images of a patient, in [0, 1].
    """

    images: float
    correlation: float

    @property
    def design_effect(self) -> float:
        """Factor by which patients raise the variance of a rate (Kish 1965): 1 + (images - 1) · correlation."""
        return 1 + (self.images - 1) * self.correlation


def clustering(answers: Sequence[PatientCounts]) -> Clustering:
    """Pooled over the classes of several models: variance between patients over that of independent images."""
    clustered = independent = squares = images = 0.0
    for counts in answers:
        for k in np.flatnonzero(counts.total.sum(0)):
            known = counts.total[:, k] > 0
            right, total = counts.right[known, k], counts.total[known, k]
            n = total.sum()
            squares, images = squares + (total**2).sum(), images + n
            if len(total) > 1:
                rate = right.sum() / n
                spread = ((right - rate * total) ** 2).sum() / n**2
                clustered += float(spread * len(total) / (len(total) - 1))
                independent += float(rate * (1 - rate) / n)
    size = float(squares / images) if images else 1.0
    effect = clustered / independent if independent else size
    return Clustering(size, min(max((effect - 1) / (size - 1), 0.0), 1.0) if size > 1 else 0.0)


def half_width(rate: float, patients: int, cluster: Clustering, confidence: float) -> float:
    """Expected half-width of the interval of a recall (`rates.rate_ci`), from the patients of its class.

    Args:
        rate: the expected recall.
        patients: of the class in the test set.
        cluster: of their images.
        confidence: of the interval.
    """
    from scipy.special import stdtrit

    images, tail = patients * cluster.images, (1 - confidence) / 2
    if patients < 2:
        return 0.5
    effective = images / cluster.design_effect
    effective *= float(stdtrit(max(images - 1, 1), tail) / stdtrit(patients - 1, tail)) ** 2
    low, high = exact_interval(rate, max(effective, 1.0), confidence)
    return (high - low) / 2


def balanced_half_width(rate: float, patients: Sequence[int], cluster: Clustering, confidence: float) -> float:
    """The same of balanced accuracy over classes with so many patients each, if every recall is `rate`."""
    halves = [half_width(rate, count, cluster, confidence) for count in patients]
    return math.hypot(*halves) / len(halves)


def patients_needed(
    width: float, rate: float, cluster: Clustering, confidence: float, *, classes: int = 1
) -> int | None:
    """Fewest patients of each class for a half-width of at most `width` of the mean recall of so many classes.

    None if `MOST` are too few.
    """
    low, high = 2, 4

    def enough(patients: int) -> bool:
        return balanced_half_width(rate, [patients] * classes, cluster, confidence) <= width

    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def detectable_difference(deviation: float, patients: int, confidence: float) -> float:
    """Smallest true difference that a two-sided test of one pair finds with a chance of `POWER`.

    `deviation` is the standard deviation of the paired difference, over resamples of whole patients.
    """
    from scipy.special import stdtrit

    free = max(patients - 1, 1)
    return deviation * float(stdtrit(free, 1 - (1 - confidence) / 2) + stdtrit(free, POWER))


def deviation_of(intervals: Sequence[Sequence[float]], confidence: float) -> float:
    """Median standard deviation of differences, from the width of their intervals (normal distribution)."""
    from scipy.special import ndtri

    widths = [high - low for low, high in intervals]
    return float(np.median(widths) / (2 * ndtri(1 - (1 - confidence) / 2)))
