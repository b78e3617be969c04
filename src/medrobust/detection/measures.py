"""How well scores tell attacked images from clean ones, with intervals over whole patients. NumPy only.

Scores are higher for what is more suspicious. Each measure is computed from weighted counts, so that a resample
of patients is a row of weights and all resamples are done at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core.intervals import patient_weights, percentiles, strata

#: False-positive rates at which the true-positive rate is told.
RATES = (0.01, 0.05, 0.1)
#: Resamples that are computed together (bounds the memory: rows × images).
CHUNK = 250


@dataclass(frozen=True)
class Answers:
    """What a model and a detector say of n images.

    Attributes:
        labels: true classes, int n.
        probabilities: calibrated, n×K.
        patients: text n.
        scores: of the detector, float n.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def preds(self) -> np.ndarray:
        """Predicted classes, int n."""
        found: np.ndarray = self.probabilities.argmax(1)
        return found

    @property
    def wrong(self) -> np.ndarray:
        """Which images are misread, bool n."""
        found: np.ndarray = self.preds != self.labels
        return found

    def where(self, rows: np.ndarray) -> "Answers":
        """Some of the images, by mask or index."""
        return Answers(self.labels[rows], self.probabilities[rows], self.patients[rows], self.scores[rows])


def roc_measures(scores: np.ndarray, attacked: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Threshold-free measures under R weightings of N images; NaN where a side has no weight.

    Args:
        scores: float N.
        attacked: bool N.
        weights: R×N, non-negative; ones for the plain measure.

    Returns:
        `auroc` (ties count half), `auprc_attacked` and `auprc_clean` (average precision with that side as the
        positive class) and `tpr_at_<rate>`, the largest share of attacked images that is caught by a threshold
        under which at most that share of clean images is; each R.
    """
    values, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(values)))
    sides = [np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (attacked, ~attacked)]
    bad, good = (np.flip(side, 1) for side in sides)  # most suspicious first
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr = bad.cumsum(1) / bad.sum(1, keepdims=True)
        fpr = good.cumsum(1) / good.sum(1, keepdims=True)
        steps = np.diff(fpr, axis=1, prepend=0)
        result = {"auroc": (steps * (tpr - np.diff(tpr, axis=1, prepend=0) / 2)).sum(1)}
        result["auprc_attacked"] = _average_precision(bad, good)
        result["auprc_clean"] = _average_precision(np.flip(good, 1), np.flip(bad, 1))
    for rate in RATES:
        caught = np.where(fpr <= rate + 1e-12, tpr, 0).max(1)
        result[f"tpr_at_{rate:g}"] = np.where(np.isnan(result["auroc"]), np.nan, caught)
    return result


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Σ (recall step) · precision from counts R×G, likeliest positive first."""
    found, false = positive.cumsum(1), negative.cumsum(1)
    precision = np.divide(found, found + false, out=np.zeros_like(found), where=found + false > 0)
    area: np.ndarray = (positive / positive.sum(1, keepdims=True) * precision).sum(1)
    return np.where(negative.sum(1) > 0, area, np.nan)


def summarise(
    clean: Answers, attacked: Answers, *, resamples: int, confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Every measure of `roc_measures` with its interval, the base rate and the counts; None where undefined.

    A patient's clean and attacked images are resampled together.
    """
    scores = np.concatenate([clean.scores, attacked.scores])
    side = np.repeat([False, True], [len(clean), len(attacked)])
    patients = np.concatenate([clean.patients, attacked.patients])
    labels = np.concatenate([clean.labels, attacked.labels])
    result: dict[str, Any] = {"n_clean": len(clean), "n_attacked": len(attacked)}
    if not len(clean) or not len(attacked):
        return {**result, "base_rate": None, "auroc": None}
    result["base_rate"] = float(side.mean())
    point = roc_measures(scores, side, np.ones((1, len(side))))
    owner = np.unique(patients, return_inverse=True)[1]
    draws = patient_weights(strata(owner, labels), resamples, seed)
    chunks = [roc_measures(scores, side, draws[at : at + CHUNK][:, owner]) for at in range(0, resamples, CHUNK)]
    for name, value in point.items():
        interval = percentiles(np.concatenate([chunk[name] for chunk in chunks]), confidence)
        result |= {name: float(value[0]), f"{name}_ci": interval}
    return result


def by_class(clean: Answers, attacked: Answers, classes: list[str], *, predicted: bool) -> dict[str, Any]:
    """AUROC and AUPRC (attacked positive, base rate beside it) among the images of each class.

    Args:
        clean, attacked: answers on both.
        classes: names.
        predicted: whether images are sorted by the predicted class instead of the true one.
    """
    result: dict[str, Any] = {}
    for k, name in enumerate(classes):
        parts = [side.where((side.preds if predicted else side.labels) == k) for side in (clean, attacked)]
        scores = np.concatenate([part.scores for part in parts])
        side = np.repeat([False, True], [len(part) for part in parts])
        if not (len(parts[0]) and len(parts[1])):
            result[name] = {"auroc": None, "auprc_attacked": None, "base_rate": None}
            continue
        found = roc_measures(scores, side, np.ones((1, len(side))))
        result[name] = {key: float(found[key][0]) for key in ("auroc", "auprc_attacked")}
        result[name]["base_rate"] = float(side.mean())
    return result


def clean_threshold(scores: np.ndarray, rate: float) -> float:
    """The smallest score of clean images above which at most `rate` of them lie; reject what is above it."""
    allowed = int(np.floor(rate * len(scores) + 1e-9))
    return float(np.sort(scores)[len(scores) - 1 - allowed])


def curve_points(clean: np.ndarray, attacked: np.ndarray, most: int) -> list[dict[str, float]]:
    """ROC and precision-recall points at no more than `most` thresholds, the most suspicious first.

    Each has `threshold`, `fpr`, `tpr` (= recall) and `precision`; an image is caught at or above the threshold.
    """
    thresholds = np.unique(np.concatenate([clean, attacked]))[::-1]
    thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).astype(int))]
    points = []
    for threshold in thresholds:
        false, found = int((clean >= threshold).sum()), int((attacked >= threshold).sum())
        points.append(
            {
                "threshold": float(threshold),
                "fpr": false / len(clean),
                "tpr": found / len(attacked),
                "precision": found / (found + false),
            }
        )
    return points
