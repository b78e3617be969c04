"""Statistics of a classifier's predictions, with intervals from `core.intervals`. NumPy only.

Everywhere: `labels` and `preds` are int, n; `logprobs` is float, n×K, log-probabilities. A statistic that is not
defined (for example because a class is absent) is None.
"""

from typing import Any, NamedTuple

import numpy as np

from medrobust.core.intervals import Statistic, percentiles, resampled_confusions, round_to_interval
from medrobust.core.ranking import weighted_auroc
from medrobust.core.rates import PatientCounts
from medrobust.core.reliability import calibration


class Estimate(NamedTuple):
    """A statistic and its confidence interval [low, high]; both are None if the statistic is not defined."""

    value: float | None
    interval: list[float] | None


def confusion(labels: np.ndarray, preds: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts, K×K: rows are true classes, columns predicted classes."""
    counts: np.ndarray = np.bincount(labels * classes + preds, minlength=classes**2)
    return counts.reshape(classes, classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class from (…×)K×K counts; NaN if the class is absent."""
    support = matrix.sum(-1)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _ratio(correct, support)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of images on the diagonal of (…×)K×K counts."""
    return np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum((-2, -1))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that are present in (…×)K×K counts."""
    return np.nanmean(recalls(matrix), -1)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur among labels or predictions in (…×)K×K counts."""
    both, correct = matrix.sum(-2) + matrix.sum(-1), np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.nanmean(_ratio(2 * correct, both), -1)


def quadratic_kappa(matrix: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights (Cohen 1968) from (…×)K×K counts of ordered classes.

    NaN if all labels and predictions are one class, because expected disagreement is then zero.
    """
    k = matrix.shape[-1]
    weight = (np.arange(k)[:, None] - np.arange(k)[None, :]) ** 2
    chance = matrix.sum(-1)[..., :, None] * matrix.sum(-2)[..., None, :]
    expected = (weight * chance).sum((-2, -1)) / matrix.sum((-2, -1))
    return 1 - _ratio((weight * matrix).sum((-2, -1)), expected)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def auroc(labels: np.ndarray, logprobs: np.ndarray) -> float | None:
    """Macro-averaged one-vs-rest AUROC (ties count half); None if a class is absent."""
    areas = []
    for k in range(logprobs.shape[1]):
        positive = labels == k
        if positive.all() or not positive.any():
            return None
        areas.append(weighted_auroc(positive, logprobs[:, k], np.ones((1, len(labels))))[0])
    return float(np.mean(areas))


def nll(labels: np.ndarray, logprobs: np.ndarray) -> float:
    """Mean negative log-likelihood of the true class, in nats."""
    return float(-logprobs[np.arange(len(labels)), labels].mean())


def brier(labels: np.ndarray, logprobs: np.ndarray) -> float:
    """Mean squared distance between probabilities and one-hot labels (Brier 1950), from 0 to 2."""
    truth = np.eye(logprobs.shape[1])[labels]
    return float(((np.exp(logprobs) - truth) ** 2).sum(1).mean())


def rate_estimates(
    right: np.ndarray, labels: np.ndarray, patients: np.ndarray, classes: list[str], *, confidence: float
) -> dict[str, Estimate]:
    """`accuracy`, `balanced_accuracy`, `recall_<class>` with the intervals of `core.rates`; `right` is bool n."""
    counts = PatientCounts.of(right, labels, patients, len(classes))
    recall = _ratio(counts.right.sum(0), counts.total.sum(0))
    found = {
        "accuracy": Estimate(float(right.mean()), counts.accuracy_ci(confidence)),
        "balanced_accuracy": Estimate(float(np.nanmean(recall)), counts.balanced_accuracy_ci(confidence)),
    }
    for k, name in enumerate(classes):
        absent = np.isnan(recall[k])
        found[f"recall_{name}"] = (
            Estimate(None, None) if absent else Estimate(float(recall[k]), counts.recall_ci(k, confidence))
        )
    return found


def estimates(
    labels: np.ndarray,
    preds: np.ndarray,
    patients: np.ndarray,
    classes: list[str],
    *,
    resamples: int,
    confidence: float,
) -> dict[str, Estimate]:
    """`rate_estimates`, and `macro_f1` and `quadratic_kappa` with intervals over resamples of whole patients."""
    found = rate_estimates(labels == preds, labels, patients, classes, confidence=confidence)
    matrix = confusion(labels, preds, len(classes))
    resampled = resampled_confusions(labels, preds, patients, len(classes), resamples)
    statistics: dict[str, Statistic] = {"macro_f1": macro_f1, "quadratic_kappa": quadratic_kappa}
    for name, statistic in statistics.items():
        found[name] = Estimate(None, None)
        if not np.isnan(value := float(statistic(matrix))):
            found[name] = Estimate(value, percentiles(statistic(resampled), confidence))
    return found


def curve_columns(name: str) -> tuple[str, str, str]:
    """Columns of a robustness curve (one row per radius) that hold a statistic of `estimates` and its interval."""
    ends = {"accuracy": "", "balanced_accuracy": "balanced_"}.get(name, f"robust_{name}_")
    return f"robust_{name}", f"{ends}low", f"{ends}high"


def classification_summary(
    labels: np.ndarray,
    logprobs: np.ndarray,
    patients: np.ndarray,
    classes: list[str],
    *,
    ordered: bool,
    resamples: int,
    confidence: float,
) -> dict[str, Any]:
    """Summary of an evaluation on clean images; `<name>_ci` is the interval of `<name>`.

    `auroc` and `nll` have no interval. Calibration is described as in `reliability.calibration`.
    """
    preds, graded = logprobs.argmax(1), ordered and len(classes) > 2
    summary: dict[str, Any] = {"n": len(labels), "patients": len(np.unique(patients))}
    statistics = estimates(labels, preds, patients, classes, resamples=resamples, confidence=confidence)
    for name, (value, interval) in statistics.items():
        if graded or name != "quadratic_kappa":
            summary |= {name: value, f"{name}_ci": interval}
    if graded:
        summary["mean_grade_error"] = float(np.abs(preds - labels).mean())
    summary |= {"auroc": auroc(labels, logprobs), "nll": nll(labels, logprobs)}
    return summary | calibration(labels, logprobs, patients, resamples=resamples, confidence=confidence)


def dvc_metrics(summary: dict[str, Any]) -> dict[str, float | None]:
    """The values of a `classification_summary` that DVC shows, rounded by the interval of balanced accuracy."""
    interval = summary["balanced_accuracy_ci"]
    return {
        name: None if summary[name] is None else round_to_interval(summary[name], interval)
        for name in ("balanced_accuracy", "auroc", "ece", "ece_null")
    }


def round_best(value: float | None) -> float | None:
    """Round the best value of many trials or epochs to two decimals; a maximum has no interval to round by."""
    return None if value is None else round(value, 2)
