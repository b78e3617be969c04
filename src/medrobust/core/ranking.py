"""The interval of an AUROC from resamples of whole patients. NumPy only."""

import numpy as np

from medrobust.core.intervals import draw_patients, percentiles


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
    owner, drawn = draw_patients(labels, patients, resamples)
    weights = drawn[:, owner]
    areas = []
    for k in range(scores.shape[1]):
        positive = labels == k
        if positive.all() or not positive.any():
            return None
        inside, outside = scores[positive, k][:, None], scores[~positive, k][None, :]
        wins = (inside > outside) + 0.5 * (inside == outside)
        pairs = weights[:, positive].sum(1) * weights[:, ~positive].sum(1)
        areas.append(((weights[:, positive] @ wins) * weights[:, ~positive]).sum(1) / pairs)
    return percentiles(np.mean(areas, axis=0), confidence)
