"""Confidence intervals of rates (recall, accuracy, balanced accuracy) over patients with several images. No torch.

A bootstrap of few patients has few different values, so that its percentiles jump between them, and near 0 and 1
they miss the true rate far too often (benchmarks/intervals.py). These intervals are computed from tail
probabilities of the beta distribution instead, without random numbers.
"""

from dataclasses import dataclass

import numpy as np


def unanimous_margin(patients: int, confidence: float) -> float:
    """Largest distance of the true rate from an observed rate of 0 or 1 among independent patients.

    The bound of Clopper & Pearson 1934 for no success in N trials: 1 - ((1 - confidence) / 2)^(1 / N).
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / patients))


def rate_ci(right: np.ndarray, total: np.ndarray, confidence: float) -> list[float]:
    """Interval [low, high] of the share of right images, from each patient's `right` of `total` images, n.

    Korn & Graubard 1998: the exact binomial interval (Clopper & Pearson 1934) for the effective number of images.
    That is rate · (1 - rate) divided by the variance of the rate between patients. It is lowered for the
    uncertainty of this variance by the squared ratio of two t quantiles (degrees of freedom of images, and of
    patients).

    Two bounds are ours. The effective number is at least sum(total)² / sum(total²) (Kish 1965), that of patients
    whose images all agree. The lower end is at most 1 - `unanimous_margin` and the upper end at least
    `unanimous_margin`, because the variance is a poor estimate if few patients have any error.
    """
    from scipy.special import stdtrit

    right, total = right[total > 0], total[total > 0]
    patients, images, tail = len(total), float(total.sum()), (1 - confidence) / 2
    rate, least = right.sum() / images, images**2 / (total**2).sum()
    variance = float(((right - rate * total) ** 2).sum()) / images**2 * patients / max(patients - 1, 1)
    if patients == 1 or rate in (0, 1):
        effective = float(patients)
    else:
        effective = min(rate * (1 - rate) / variance, images) if variance > 0 else images
        effective *= (stdtrit(images - 1, tail) / stdtrit(patients - 1, tail)) ** 2
        effective = max(effective, least)
    low, high = exact_interval(rate, effective, confidence)
    margin = unanimous_margin(patients, confidence)
    return [min(low, 1 - margin), max(high, margin)]


def exact_interval(rate: float, effective: float, confidence: float) -> list[float]:
    """The binomial interval [low, high] of Clopper & Pearson 1934 for any number of trials, whole or not."""
    from scipy.special import betaincinv

    tail, successes, failures = (1 - confidence) / 2, rate * effective, (1 - rate) * effective
    low = betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return [float(low), float(high)]


@dataclass(frozen=True)
class PatientCounts:
    """Right predictions and all images of P patients by true class; both P×K."""

    right: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, right: np.ndarray, labels: np.ndarray, patients: np.ndarray, classes: int) -> "PatientCounts":
        """Count images; `right` is bool n, `labels` int n (0 to classes - 1), `patients` text n."""
        names, owner = np.unique(patients, return_inverse=True)
        counts = np.zeros((2, len(names), classes))
        np.add.at(counts[0], (owner, labels), right)
        np.add.at(counts[1], (owner, labels), 1)
        return cls(counts[0], counts[1])

    def recall_ci(self, k: int, confidence: float) -> list[float]:
        """Interval of the recall of class k, which must have images."""
        return rate_ci(self.right[:, k], self.total[:, k], confidence)

    def accuracy_ci(self, confidence: float) -> list[float]:
        """Interval of the accuracy: the common part of two.

        One is that of all patients together. The other combines the classes, and is narrower where their recalls
        differ.
        """
        low, high = self._mean_ci(self.total.sum(0), confidence)
        pooled_low, pooled_high = rate_ci(self.right.sum(1), self.total.sum(1), confidence)
        return [max(low, pooled_low), min(high, pooled_high)]

    def balanced_accuracy_ci(self, confidence: float) -> list[float]:
        """Interval of the mean recall over the classes that have images."""
        return self._mean_ci((self.total.sum(0) > 0).astype(float), confidence)

    def _mean_ci(self, weights: np.ndarray, confidence: float) -> list[float]:
        """Interval of a weighted mean of the recalls, from their own intervals.

        The method of variance estimates recovery (Zou & Donner 2008): the squares of the distances to the lower
        ends add up, and so do those to the upper ends. Recalls of classes that share patients count as correlated
        as their errors are, unless the correlation is negative.
        """
        known = np.flatnonzero(weights)
        shares, size = weights[known] / weights.sum(), self.total[:, known].sum(0)
        rates = self.right[:, known].sum(0) / size
        errors = (self.right[:, known] - rates * self.total[:, known]) / size
        length = np.sqrt((errors**2).sum(0))
        scaled = np.divide(errors, length, out=np.zeros_like(errors), where=length > 0)
        correlation = np.maximum(scaled.T @ scaled, np.eye(len(known)))
        ends = np.array([self.recall_ci(k, confidence) for k in known.tolist()]).T
        middle = float(shares @ rates)
        below, above = ((side := shares * (end - rates)) @ correlation @ side for end in ends)
        return [max(middle - float(below) ** 0.5, 0.0), min(middle + float(above) ** 0.5, 1.0)]


def share_ci(right: np.ndarray, labels: np.ndarray, patients: np.ndarray, confidence: float) -> list[float]:
    """Interval of the share of True among n images; `PatientCounts.accuracy_ci` of patients in their classes."""
    return PatientCounts.of(right, labels, patients, int(labels.max()) + 1).accuracy_ci(confidence)
