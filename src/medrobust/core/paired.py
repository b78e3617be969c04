"""Differences between models on the same images, over patients with several images. NumPy only.

Everywhere: `labels` is int, n; `patients` is text, n. A difference comes with an interval from resamples of whole
patients. Its test changes the signs of whole patients at random, because under "no difference" each patient would
have favoured the other model as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from medrobust.core.intervals import draw_patients, percentiles

#: Up to so many patients whose results differ, all signs are tried; above, `DRAWS` random ones.
EXACT, DRAWS = 12, 10_000


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model minus that of another.

    Attributes:
        value: the difference, in [-1, 1].
        interval: [low, high] over resamples of whole patients.
        p: two-sided p-value of `sign_flip`.
        p_holm: the same, corrected for all comparisons of the family (`holm`).
    """

    value: float
    interval: list[float]
    p: float
    p_holm: float


def image_weights(labels: np.ndarray, *, balanced: bool) -> np.ndarray:
    """Weight of each image in accuracy or, if `balanced`, in balanced accuracy; float n, sum 1."""
    if not balanced:
        return np.full(len(labels), 1 / len(labels))
    _, number, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = 1 / (sizes[number] * len(sizes))
    return weights


def sign_flip(gain: np.ndarray, patients: np.ndarray) -> float:
    """P-value of a sum of paired differences under random signs of whole patients (two-sided).

    `gain` is the weighted difference of each image, float n.
    """
    sums = np.bincount(np.unique(patients, return_inverse=True)[1], gain)
    sums = sums[np.abs(sums) > 1e-12]
    least = abs(sums.sum()) - 1e-9
    if len(sums) <= EXACT:
        signs = np.array([*product((-1, 1), repeat=len(sums))])
        return float(np.mean(np.abs(signs @ sums) >= least))
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.int8), (DRAWS, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= least)) / (1 + DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the chance of any false finding stays below the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return [float(value) for value in corrected]


def resampled_accuracies(
    right: np.ndarray, labels: np.ndarray, patients: np.ndarray, *, balanced: bool, resamples: int
) -> np.ndarray:
    """(Balanced) accuracy of M models in each resample of whole patients, resamples×M; `right` is bool, n×M."""
    owner, weights = draw_patients(labels, patients, resamples)
    group = np.unique(labels, return_inverse=True)[1] if balanced else np.zeros(len(labels), dtype=np.int64)
    counts = np.zeros((weights.shape[1], int(group.max()) + 1, right.shape[1] + 1))
    np.add.at(counts, (owner, group), np.column_stack([right, np.ones(len(labels))]))
    sums = np.tensordot(weights, counts, axes=1)
    # A class whose patients all count for another class may be absent from a resample.
    known = sums[..., -1:] > 0
    shares = np.divide(sums[..., :-1], sums[..., -1:], out=np.full(sums[..., :-1].shape, np.nan), where=known)
    means: np.ndarray = np.nanmean(shares, axis=1)
    return means


def paired_differences(
    right: np.ndarray, labels: np.ndarray, patients: np.ndarray, pairs: Sequence[tuple[int, int]], *,
    balanced: bool, resamples: int, confidence: float,
) -> list[Difference]:  # fmt: skip
    """Compare models pairwise on the same images; all pairs are one family of tests.

    Args:
        right: whether each of M models is right on each image; bool, n×M.
        labels: int, n.
        patients: text, n.
        pairs: columns (a, b) of `right`; the difference is a minus b.
        balanced: compare balanced accuracy (mean over the classes) instead of accuracy.
        resamples: number of resamples of whole patients, drawn within their class.
        confidence: of the intervals.
    """
    drawn = resampled_accuracies(right, labels, patients, balanced=balanced, resamples=resamples)
    weights = image_weights(labels, balanced=balanced)
    gains = [weights * (right[:, a].astype(float) - right[:, b]) for a, b in pairs]
    p_values = [sign_flip(gain, patients) for gain in gains]
    return [
        Difference(float(gain.sum()), percentiles(drawn[:, a] - drawn[:, b], confidence), p, corrected)
        for (a, b), gain, p, corrected in zip(pairs, gains, p_values, holm(p_values), strict=True)
    ]
