"""How well scores separate attacked from clean images, with intervals over whole patients. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.core.intervals import draw_patients, percentiles
from medrobust.core.rates import share_ci

#: False-positive rates at which the true-positive rate is reported.
RATES = (0.01, 0.05, 0.1)
#: Resamples that are computed together; bounds the memory (rows × images).
CHUNK = 250


@dataclass(frozen=True)
class ScoredImages:
    """True classes (int n), calibrated probabilities (n×K), patient ids, and a detector's scores (n) of images."""

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def preds(self) -> np.ndarray:
        return self.probabilities.argmax(1)

    @property
    def wrong(self) -> np.ndarray:
        return self.preds != self.labels

    def where(self, rows: np.ndarray) -> "ScoredImages":
        return ScoredImages(self.labels[rows], self.probabilities[rows], self.patients[rows], self.scores[rows])


def roc_measures(scores: np.ndarray, attacked: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Threshold-free measures of N images under R weightings (R×N, >= 0); NaN where one side has no weight.

    Returns, each R, `auroc` (ties count half), `auprc_attacked` and `auprc_clean` (average precision with that
    side as the positive class) and `tpr_at_<rate>`, the largest share of attacked images that is caught by a
    threshold which at most that share of clean images reaches.
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
    """Σ (recall step) · precision from counts R×G, most likely positive first."""
    true, false = positive.cumsum(1), negative.cumsum(1)
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    area: np.ndarray = (positive / positive.sum(1, keepdims=True) * precision).sum(1)
    return np.where(negative.sum(1) > 0, area, np.nan)


def summarise(clean: ScoredImages, attacked: ScoredImages, *, resamples: int, confidence: float) -> dict[str, Any]:
    """Every measure of `roc_measures` with its interval, the base rate, and the counts; None where undefined.

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
    owner, weights = draw_patients(labels, patients, resamples)
    chunks = [roc_measures(scores, side, weights[at : at + CHUNK][:, owner]) for at in range(0, resamples, CHUNK)]
    for name, value in point.items():
        interval = percentiles(np.concatenate([chunk[name] for chunk in chunks]), confidence)
        result |= {name: float(value[0]), f"{name}_ci": interval}
    return result


def by_class(
    clean: ScoredImages, attacked: ScoredImages, classes: list[str], *, predicted: bool
) -> dict[str, Any]:
    """AUROC, AUPRC (attacked images are the positive class) and base rate per true or per predicted class."""
    result: dict[str, Any] = {}
    for k, name in enumerate(classes):
        parts = [side.where((side.preds if predicted else side.labels) == k) for side in (clean, attacked)]
        scores = np.concatenate([part.scores for part in parts])
        side = np.repeat([False, True], [len(part) for part in parts])
        if not (len(parts[0]) and len(parts[1])):
            result[name] = {"auroc": None, "auprc_attacked": None, "base_rate": None}
            continue
        point = roc_measures(scores, side, np.ones((1, len(side))))
        result[name] = {key: float(point[key][0]) for key in ("auroc", "auprc_attacked")}
        result[name]["base_rate"] = float(side.mean())
    return result


def clean_threshold(scores: np.ndarray, rate: float) -> float:
    """The smallest clean score with at most `rate` of the clean scores above it; images above it are rejected."""
    allowed = int(np.floor(rate * len(scores) + 1e-9))
    return float(np.sort(scores)[len(scores) - 1 - allowed])


def false_alarms(clean: ScoredImages, threshold: float, confidence: float) -> dict[str, Any]:
    """`rate`, the share of clean test images above a threshold, and its interval `ci`.

    A threshold is set on few validation images, so that this share is seldom the nominal one.
    """
    rejected = clean.scores > threshold
    ci = share_ci(rejected, clean.labels, clean.patients, confidence)
    return {"rate": float(rejected.mean()), "ci": ci}


def curve_points(clean: np.ndarray, attacked: np.ndarray, most: int) -> list[dict[str, float]]:
    """ROC and precision-recall points at no more than `most` thresholds, highest threshold first.

    Each has `threshold`, `fpr`, `tpr` (= recall) and `precision`; an image at or above the threshold is caught.
    """
    thresholds = np.unique(np.concatenate([clean, attacked]))[::-1]
    thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).astype(int))]
    points = []
    for threshold in thresholds:
        false, true = int((clean >= threshold).sum()), int((attacked >= threshold).sum())
        rates = {"fpr": false / len(clean), "tpr": true / len(attacked), "precision": true / (true + false)}
        points.append({"threshold": float(threshold), **rates})
    return points


def successful(clean: ScoredImages, attacked: ScoredImages) -> np.ndarray:
    """Images whose prediction is right when clean and wrong when attacked, bool n."""
    return ~clean.wrong & attacked.wrong


def least_suspicious(clean: ScoredImages, candidates: list[ScoredImages]) -> ScoredImages:
    """Per image, the candidate with the lowest score among those that are misclassified; the last if none is.

    An image that is misclassified without an attack counts as fooled in every candidate that is misclassified.
    """
    scores = np.stack([candidate.scores for candidate in candidates])
    ranked = np.where([candidate.wrong for candidate in candidates], scores, np.inf)
    best = np.where(np.isfinite(ranked).any(0), ranked.argmin(0), len(candidates) - 1), np.arange(len(clean))
    probabilities = np.stack([candidate.probabilities for candidate in candidates])
    return ScoredImages(clean.labels, probabilities[best], clean.patients, scores[best])


def summarise_evasion(
    clean: ScoredImages, attacked: ScoredImages, val_scores: np.ndarray, *, resamples: int, confidence: float
) -> dict[str, Any]:
    """AUROC on all and on successful images, success rate, and evasion at thresholds of clean validation images.

    `evasion` is the share of the `right` images (predicted right without an attack) that are both fooled and
    accepted, by false-positive rate; intervals are in `evasion_ci`. `successful` counts the fooled images.
    """
    intervals: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    hit, initially_right = successful(clean, attacked), ~clean.wrong
    right = int(initially_right.sum())
    on_all = summarise(clean, attacked, **intervals)
    on_successful = summarise(clean, attacked.where(hit), **intervals)
    evasion, evasion_ci = {}, {}
    for rate in RATES:
        accepted = attacked.scores <= clean_threshold(val_scores, rate)
        evaded = (hit & accepted)[initially_right]
        sample = (clean.labels[initially_right], clean.patients[initially_right])
        evasion[f"{rate:g}"] = float(evaded.mean()) if right else None
        evasion_ci[f"{rate:g}"] = share_ci(evaded, *sample, confidence) if right else None
    return {
        "n": len(clean),
        "patients": len(np.unique(clean.patients)),
        "right": right,
        "successful": int(hit.sum()),
        "auroc": on_all["auroc"],
        "auroc_ci": on_all.get("auroc_ci"),
        "successful_auroc": on_successful["auroc"],
        "successful_auroc_ci": on_successful.get("auroc_ci"),
        "successful_auprc_attacked": on_successful.get("auprc_attacked"),
        "successful_base_rate": on_successful["base_rate"],
        "success": float(hit.sum() / right) if right else None,
        "evasion": evasion,
        "evasion_ci": evasion_ci,
    }
