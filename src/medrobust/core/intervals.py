"""Confidence intervals from a bootstrap over whole patients, and rounding by their width. NumPy only.

Images of one patient are not independent, so resamples draw patients, not images. Rates have better intervals in
`core.rates`; these are for all other statistics.

Everywhere: `labels` and `preds` are int, n; `patients` is text, n.
"""

import math
from collections.abc import Callable

import numpy as np

#: With fewer test patients than this in a class, bootstrap intervals are known to be too narrow, and intervals of
#: rates are wide (benchmarks/intervals.py).
FEW_PATIENTS = 10
SEED = 0
#: (…×)K×K confusion counts -> one number per matrix; NaN where it is not defined.
Statistic = Callable[[np.ndarray], np.ndarray]


def mean_ci(
    values: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    resamples: int,
    confidence: float,
) -> list[float]:
    """Percentile interval [low, high] of the mean of n values over resamples of whole patients.

    Patients are drawn with replacement within their class (`patient_weights`), so every resample has every class.
    For shares use `rates.share_ci`.
    """
    owner, weights = draw_patients(labels, patients, resamples)
    sums = np.tensordot(weights, np.column_stack([np.bincount(owner, values), np.bincount(owner)]), axes=1)
    return percentiles(sums[:, 0] / sums[:, 1], confidence)


def resampled_confusions(
    labels: np.ndarray, preds: np.ndarray, patients: np.ndarray, classes: int, resamples: int
) -> np.ndarray:
    """Confusion matrices of resamples of whole patients, R×K×K; counts are weighted and need not be integers."""
    owner, weights = draw_patients(labels, patients, resamples)
    counts = np.zeros((weights.shape[1], classes, classes), dtype=np.int64)
    np.add.at(counts, (owner, labels, preds), 1)
    return np.tensordot(weights, counts, axes=1)


def draw_patients(labels: np.ndarray, patients: np.ndarray, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Index of each image's patient, int n (0 to P - 1), and `patient_weights` within classes, resamples×P."""
    owner = np.unique(patients, return_inverse=True)[1]
    return owner, patient_weights(strata(owner, labels), resamples)


def strata(owner: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Stratum of each patient, int P: the majority label of the patient's images; ties go to the lowest label.

    `owner` is the index of each image's patient, int n, 0 to P - 1.
    """
    counts = np.zeros((int(owner.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (owner, labels), 1)
    return counts.argmax(1)


def patient_weights(stratum: np.ndarray, resamples: int) -> np.ndarray:
    """Weight of each of P patients in each resample, resamples×P; the weights of a stratum add up to its size.

    In a stratum of n patients, n - 1 are drawn with replacement, each with weight n / (n - 1) (Rao & Wu 1988).
    Drawing n would make the variance too small by that factor, which is a third for a class of three patients.
    The only patient of a stratum always has weight 1.
    `stratum` is the class of each patient, int P.
    """
    rng = np.random.default_rng(SEED)
    weights = np.ones((resamples, len(stratum)))
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        if (n := len(members)) > 1:
            weights[:, members] = rng.multinomial(n - 1, np.full(n, 1 / n), size=resamples) * n / (n - 1)
    return weights


def percentiles(values: np.ndarray, confidence: float) -> list[float]:
    """Central interval [low, high] of a statistic's values over resamples; NaN values are ignored."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    # Weighted sums leave rounding errors; a value that is equal in all resamples must get width zero.
    return [round(float(low), 12), round(float(high), 12)]


def round_to_interval(value: float, interval: list[float]) -> float:
    """Round to the decimal of the first significant digit of half the interval's width; two decimals at least.

    An interval of width zero comes from too few patients or from a rate of 0 or 1; it supports no third decimal.
    """
    half = (interval[1] - interval[0]) / 2
    return round(value, max(2, math.ceil(-math.log10(half))) if half > 0 else 2)
