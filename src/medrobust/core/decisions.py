"""Decisions from a score: ROC curve, operating point, decision curve. NumPy only.

Everywhere: `positive` is bool, n: whether an image has the condition; `scores` is float, n: the higher, the more
likely it has; `labels` is int, n, the class; `patients` is text, n. An image is called positive if its score is at
least the threshold.
"""

import numpy as np

from medrobust.core.intervals import draw_patients
from medrobust.core.rates import PatientCounts


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False-positive rates, true-positive rates and thresholds, from the strictest threshold to the laxest.

    The first threshold is infinite: no image is called positive. Images of equal score are called together.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits, misses = (np.append(0, np.cumsum(chosen[order])[last]) for chosen in (positive, ~positive))
    return misses / (~positive).sum(), hits / positive.sum(), np.append(np.inf, scores[order][last])


def mean_roc(labels: np.ndarray, probabilities: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    """True-positive rates at the false-positive rates of a grid; None if a class is absent.

    Two classes: class 1. More: the mean over the classes, each against the rest, whose area is the macro AUROC.
    `probabilities` is n×K.
    """
    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else [1]
    curves = []
    for k in classes:
        positive = labels == k
        if positive.all() or not positive.any():
            return None
        false, true, _ = roc_curve(positive, probabilities[:, k])
        upper = true[np.searchsorted(false, grid, "right") - 1]  # where the curve rises, its upper end counts
        curves.append(np.maximum(np.interp(grid, false, true), upper))
    mean: np.ndarray = np.mean(curves, axis=0)
    return mean


def best_threshold(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """The threshold with the largest sum of sensitivity and specificity (Youden 1950); None if a class is absent.

    Between neighbouring scores the threshold is their middle, so that it does not sit on one image. Of several
    equally good thresholds the strictest is used.
    """
    if positive.all() or not positive.any():
        return None
    false, true, thresholds = roc_curve(positive, scores)
    best = int((true - false).argmax())
    lower = thresholds[best + 1] if best + 1 < len(thresholds) else -np.inf
    middle = (thresholds[best] + lower) / 2
    return float(middle) if np.isfinite(middle) else float(thresholds[best])


def sensitivity_and_specificity(
    positive: np.ndarray, called: np.ndarray, patients: np.ndarray, confidence: float
) -> dict[str, float | list[float] | None]:
    """`sensitivity` and `specificity` with their intervals `..._ci` over whole patients (`core.rates`).

    `called` is bool, n: whether the image was called positive. Without images of a kind both are None.
    """
    counts = PatientCounts.of(called == positive, positive.astype(np.int64), patients, 2)
    found: dict[str, float | list[float] | None] = {}
    for name, kind in (("sensitivity", 1), ("specificity", 0)):
        total = counts.total[:, kind].sum()
        found[name] = float(counts.right[:, kind].sum() / total) if total else None
        found[f"{name}_ci"] = counts.recall_ci(kind, confidence) if total else None
    return found


def net_benefit(
    positive: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, thresholds: np.ndarray, *,
    resamples: int, confidence: float,
) -> np.ndarray:  # fmt: skip
    """Net benefit at each threshold probability, T×3: value, and ends of its interval over whole patients.

    Vickers & Elkin 2006: the share of true positives, minus that of false positives times the odds of the
    threshold. It is in units of true positives per image, at the share of positives of these images. The
    thresholds are in (0, 1).
    """
    odds = thresholds / (1 - thresholds)
    called = probabilities[:, None] >= thresholds
    gains = called * np.where(positive[:, None], 1.0, -odds)
    owner, weights = draw_patients(positive.astype(np.int64), patients, resamples)
    sums = np.zeros((weights.shape[1], len(thresholds) + 1))
    np.add.at(sums, owner, np.column_stack([gains, np.ones(len(gains))]))
    drawn = weights @ sums
    tail = (1 - confidence) / 2
    ends = np.quantile(drawn[:, :-1] / drawn[:, -1:], [tail, 1 - tail], axis=0)
    return np.column_stack([gains.mean(0), *ends])


def treat_all(positive: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Net benefit of calling every image positive, T; that of calling none is 0."""
    share = positive.mean()
    benefit: np.ndarray = share - (1 - share) * thresholds / (1 - thresholds)
    return benefit
