"""AUROC with weighted images, and its interval from resamples of whole patients. NumPy only."""

import numpy as np

from medrobust.core.intervals import draw_patients, percentiles

#: Resamples whose weights of all images are in memory at once.
CHUNK = 100


def auroc_ci(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, *, resamples: int, confidence: float
) -> list[float] | None:
    """Percentile interval [low, high] of the macro-averaged one-vs-rest AUROC; patients are drawn within classes.

    Args:
        labels: int, n.
        scores: float, n×K; ties count half.
        patients: text, n.
        resamples: number of resamples.
        confidence: of the interval.

    Returns:
        None if a class is absent.
    """
    positives = labels[:, None] == np.arange(scores.shape[1])
    if positives.all(0).any() or not positives.any(0).all():
        return None
    owner, drawn = draw_patients(labels, patients, resamples)
    areas = []
    for start in range(0, resamples, CHUNK):
        weights = drawn[start : start + CHUNK, owner]
        by_class = [weighted_auroc(*column, weights) for column in zip(positives.T, scores.T, strict=True)]
        areas.append(np.mean(by_class, axis=0))
    return percentiles(np.concatenate(areas), confidence)


def weighted_auroc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC, R, with R weights of each image (R×n): the weighted share of pairs that the scores order rightly.

    `positive` is bool, n; `scores` float, n. Ties count half.
    """
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] > ranked[:-1]))
    inside, outside = (
        np.add.reduceat(weights[:, order] * chosen[order], starts, axis=1) for chosen in (positive, ~positive)
    )
    below = np.cumsum(outside, axis=1) - outside / 2
    area: np.ndarray = (inside * below).sum(1) / (inside.sum(1) * outside.sum(1))
    return area
