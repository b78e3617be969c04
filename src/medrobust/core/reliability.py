"""How well a model's confidence matches its accuracy. No torch.

Everywhere: `labels` is int, n; `logprobs` is float, n×K, log-probabilities; `patients` is text, n. The confidence
of an image is the probability of the predicted class.
"""

from typing import Any

import numpy as np

from medrobust.core.intervals import SEED, mean_ci
from medrobust.core.rates import share_ci

#: Fewest images in a bin (if there are that many at all), and the largest number of bins.
BIN_IMAGES, MOST_BINS = 20, 10
#: The same of a reliability diagram, which shows the interval of each bin: few images make up to four small bins.
DRAWN, SMALL_DRAWN, SMALL_BINS = 10, 5, 4


def ece(labels: np.ndarray, logprobs: np.ndarray) -> float:
    """Expected calibration error of the predicted class over few bins of equal count (Nguyen & O'Connor 2015).

    Even a calibrated model has an error above 0 (Roelofs et al. 2022): compare it with `calibrated_ece`. Images of
    equal confidence share one bin, so that their order does not matter.
    """
    confidence, correct = _confidence_and_correct(labels, logprobs)
    gaps = np.bincount(_bins(confidence), correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def reliability_bins(
    labels: np.ndarray, logprobs: np.ndarray, patients: np.ndarray, confidence: float
) -> list[list[float]]:
    """[mean confidence, accuracy, low, high] of bins of equal count, rising; intervals are over whole patients.

    The bins are finer than those of `ece`, whose error above 0 grows with their number: `DRAWN` images each, or
    `SMALL_DRAWN` where that gives fewer than `SMALL_BINS` bins.
    """
    top, correct = _confidence_and_correct(labels, logprobs)
    count = max(len(top) // DRAWN, min(len(top) // SMALL_DRAWN, SMALL_BINS))
    bins, found = _bins(top, count), []
    for number in np.unique(bins):
        inside = bins == number
        right = correct[inside]
        interval = share_ci(right, np.zeros(len(right), dtype=np.int64), patients[inside], confidence)
        found.append([float(top[inside].mean()), float(right.mean()), *interval])
    return found


def calibrated_ece(logprobs: np.ndarray, *, resamples: int, confidence: float) -> tuple[float, float]:
    """Mean and upper quantile (at `confidence`) of the ECE of a perfectly calibrated model with these confidences.

    Images are treated as independent. Images of one patient are not, so a calibrated model exceeds the quantile a
    little more often than in 1 - `confidence` of the cases.
    """
    rng, top = np.random.default_rng(SEED), np.exp(logprobs.max(1))
    total, bins = np.zeros(resamples), _bins(top)
    for number in np.unique(bins):
        members = top[bins == number]
        total += np.abs((rng.random((resamples, len(members))) < members).sum(1) - members.sum())
    return float(total.mean() / len(top)), float(np.quantile(total, confidence) / len(top))


def calibration_line(
    labels: np.ndarray, logprobs: np.ndarray, patients: np.ndarray, confidence: float
) -> dict[str, float | list[float] | None]:
    """`calibration_slope` and `calibration_intercept` of Cox 1958, with intervals `..._ci` over patients.

    Log-odds that the prediction is right = intercept + slope · log-odds of the confidence. A calibrated model has
    slope 1 and intercept 0; a slope below 1 means that confidences are too extreme. All are None if the likelihood
    has no maximum, because one confidence separates right from wrong predictions.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logsumexp, stdtrit

    names = ("calibration_intercept", "calibration_slope")
    correct, rows = logprobs.argmax(1) == labels, np.arange(len(labels))
    others = logprobs.copy()
    others[rows, logprobs.argmax(1)] = -np.inf
    odds = np.clip(logprobs.max(1) - logsumexp(others, 1), -30, 30)
    right, wrong = odds[correct], odds[~correct]
    if not len(right) or not len(wrong) or wrong.max() <= right.min() or right.max() <= wrong.min():
        return {key: None for name in names for key in (name, f"{name}_ci")}
    design = np.column_stack([np.ones(len(odds)), odds])

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = design @ line
        value = float((np.logaddexp(0, logits) - correct * logits).mean())
        return value, design.T @ (expit(logits) - correct) / len(odds)

    line = minimize(loss, np.array([0.0, 1.0]), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    fitted = expit(design @ line)
    owner = np.unique(patients, return_inverse=True)[1]
    scores = np.column_stack([np.bincount(owner, part) for part in (design * (correct - fitted)[:, None]).T])
    inverse = np.linalg.inv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    count = len(scores)
    variance = np.diag(inverse @ scores.T @ scores @ inverse) * count / max(count - 1, 1)
    half = np.sqrt(variance) * -stdtrit(max(count - 2, 1), (1 - confidence) / 2)
    result: dict[str, float | list[float] | None] = {}
    for name, value, width in zip(names, line.tolist(), half.tolist(), strict=True):
        result |= {name: value, f"{name}_ci": [value - width, value + width]}
    return result


def calibration(
    labels: np.ndarray, logprobs: np.ndarray, patients: np.ndarray, *, resamples: int, confidence: float
) -> dict[str, Any]:
    """`ece`, `ece_null` and `ece_null_high` (`calibrated_ece`), `confidence_gap`, and `calibration_line`.

    `confidence_gap` is mean confidence minus accuracy: positive if the model is overconfident. Its interval is
    over whole patients.
    """
    top, correct = _confidence_and_correct(labels, logprobs)
    null, high = calibrated_ece(logprobs, resamples=resamples, confidence=confidence)
    gaps = top - correct
    return {
        "ece": ece(labels, logprobs),
        "ece_null": null,
        "ece_null_high": high,
        "confidence_gap": float(gaps.mean()),
        "confidence_gap_ci": mean_ci(gaps, labels, patients, resamples=resamples, confidence=confidence),
        **calibration_line(labels, logprobs, patients, confidence),
    }


def _confidence_and_correct(labels: np.ndarray, logprobs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.exp(logprobs.max(1)), logprobs.argmax(1) == labels


def _bins(confidence: np.ndarray, wanted: int | None = None) -> np.ndarray:
    """The bin of each image, int n; without a number of bins, those of `ece`."""
    count = min(max(len(confidence) // BIN_IMAGES if wanted is None else wanted, 1), MOST_BINS)
    first: np.ndarray = np.searchsorted(np.sort(confidence), confidence)
    return first * count // len(confidence)
