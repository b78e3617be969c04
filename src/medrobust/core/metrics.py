"""Statistics of a classifier's answers, and intervals that respect patients. NumPy only.

Everywhere: `labels` and `preds` are int, n; `logprobs` is float, n×K, log-probabilities; a number that is not
defined (a class that is absent) is None and never invented.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

#: Test patients of a class below which its intervals are known to be too narrow (benchmarks/intervals.py).
FEW_PATIENTS = 10
#: Of (…×)K×K counts: a number for each matrix, NaN where it is not defined.
Statistic = Callable[[np.ndarray], np.ndarray]


class Measured(NamedTuple):
    """A number and its interval [low, high]; both None where it is not defined."""

    value: float | None
    interval: list[float] | None


def confusion(labels: np.ndarray, preds: np.ndarray, classes: int) -> np.ndarray:
    """Counts, K×K: rows are the true class, columns the predicted one."""
    counts: np.ndarray = np.bincount(labels * classes + preds, minlength=classes**2)
    matrix: np.ndarray = counts.reshape(classes, classes)
    return matrix


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class from (…×)K×K counts; NaN where the class is absent."""
    support = matrix.sum(-1)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _ratio(correct, support)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of images on the diagonal of (…×)K×K counts."""
    share: np.ndarray = np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum((-2, -1))
    return share


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that are present in (…×)K×K counts."""
    mean: np.ndarray = np.nanmean(recalls(matrix), -1)
    return mean


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur as truth or prediction in (…×)K×K counts."""
    both, correct = matrix.sum(-2) + matrix.sum(-1), np.diagonal(matrix, axis1=-2, axis2=-1)
    mean: np.ndarray = np.nanmean(_ratio(2 * correct, both), -1)
    return mean


def quadratic_kappa(matrix: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights (Cohen 1968) from (…×)K×K counts of ordered classes.

    NaN where truth and answers are one class, so that chance alone explains them.
    """
    k = matrix.shape[-1]
    weight = (np.arange(k)[:, None] - np.arange(k)[None, :]) ** 2
    # By chance: the rows' sums times the columns' over the whole.
    chance = matrix.sum(-1)[..., :, None] * matrix.sum(-2)[..., None, :]
    expected = (weight * chance).sum((-2, -1)) / matrix.sum((-2, -1))
    kappa: np.ndarray = 1 - _ratio((weight * matrix).sum((-2, -1)), expected)
    return kappa


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients, NaN where the whole is nothing."""
    found: np.ndarray = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return found


def auroc(labels: np.ndarray, logprobs: np.ndarray) -> float | None:
    """Macro one-versus-rest area under the ROC curve by ranks (ties count half); None if a class is absent."""
    areas = []
    for k in range(logprobs.shape[1]):
        positive = labels == k
        n_positive, n_negative = positive.sum(), (~positive).sum()
        if not n_positive or not n_negative:
            return None
        _, inverse, counts = np.unique(logprobs[:, k], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
        areas.append((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
    return float(np.mean(areas))


def ece(labels: np.ndarray, logprobs: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the top class over bins of equal count (Nguyen & O'Connor 2015).

    Equal confidences share a bin, however many they are: else the order of the images would tell them apart.
    """
    confidence = np.exp(logprobs.max(1))
    correct = logprobs.argmax(1) == labels
    first = np.searchsorted(np.sort(confidence), confidence)
    gaps = np.bincount(first * bins // len(labels), correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def nll(labels: np.ndarray, logprobs: np.ndarray) -> float:
    """Mean negative log-likelihood of the true class, in nats."""
    return float(-logprobs[np.arange(len(labels)), labels].mean())


def brier(labels: np.ndarray, logprobs: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the truth (Brier 1950), from 0 to 2."""
    truth = np.eye(logprobs.shape[1])[labels]
    return float(((np.exp(logprobs) - truth) ** 2).sum(1).mean())


def bootstrap_ci(
    labels: np.ndarray,
    preds: np.ndarray,
    patients: np.ndarray,
    classes: int,
    statistic: Statistic,
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> list[float]:
    """Percentile interval of a statistic of the confusion matrix over resamples of whole patients.

    Patients are drawn with replacement within their class (`patient_weights`), so that no resample loses a class.

    Args:
        labels: int, n.
        preds: int, n.
        patients: text, n; the images of a patient stay together.
        classes: K.
        statistic: R×K×K counts -> R numbers.
        resamples: how many.
        confidence: for instance 0.95.
        seed: of the resampling.

    Returns:
        [low, high].
    """
    return percentiles(statistic(_confusions(labels, preds, patients, classes, resamples, seed)), confidence)


def measured(
    labels: np.ndarray,
    preds: np.ndarray,
    patients: np.ndarray,
    classes: list[str],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> dict[str, Measured]:
    """Every measure of the confusion matrix with the interval that `bootstrap_ci` gives it.

    Args:
        labels, preds, patients, resamples, confidence, seed: as in `bootstrap_ci`.
        classes: their names.

    Returns:
        `accuracy`, `balanced_accuracy`, `macro_f1`, `quadratic_kappa`, and `recall_<class>` of each class.
    """
    matrix = confusion(labels, preds, len(classes))
    sums = _confusions(labels, preds, patients, len(classes), resamples, seed)
    statistics: dict[str, Statistic] = {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "quadratic_kappa": quadratic_kappa,
    }
    pairs = {name: (statistic(matrix), statistic(sums)) for name, statistic in statistics.items()}
    columns = zip(recalls(matrix), recalls(sums).T, strict=True)
    pairs |= {f"recall_{name}": pair for name, pair in zip(classes, columns, strict=True)}
    return {
        name: Measured(None, None) if np.isnan(value) else Measured(float(value), percentiles(drawn, confidence))
        for name, (value, drawn) in pairs.items()
    }


def _confusions(
    labels: np.ndarray, preds: np.ndarray, patients: np.ndarray, classes: int, resamples: int, seed: int
) -> np.ndarray:
    """Confusion matrices of resamples of whole patients, R×K×K; counts are weights and need not be whole."""
    names, owner = np.unique(patients, return_inverse=True)
    counts = np.zeros((len(names), classes, classes), dtype=np.int64)
    np.add.at(counts, (owner, labels, preds), 1)
    return _resampled(counts, strata(owner, labels), resamples, seed)


def mean_ci(
    values: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> list[float]:
    """Percentile interval of a mean over images, [low, high]; patients are drawn as in `bootstrap_ci`.

    Args:
        values: float, n.
        labels: int, n.
        patients: text, n.
        resamples, confidence, seed: as in `bootstrap_ci`.
    """
    owner = np.unique(patients, return_inverse=True)[1]
    parts = np.column_stack([np.bincount(owner, values), np.bincount(owner)])
    sums = _resampled(parts, strata(owner, labels), resamples, seed)
    return percentiles(sums[:, 0] / sums[:, 1], confidence)


def strata(owner: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class of each patient, int P: what most of his images are, the lowest of equals.

    Args:
        owner: int, n; which patient each image is of, 0 to P - 1.
        labels: int, n.
    """
    counts = np.zeros((int(owner.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (owner, labels), 1)
    commonest: np.ndarray = counts.argmax(1)
    return commonest


def patient_weights(stratum: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How much each of P patients counts in each resample, resamples×P; in a stratum they add up to its size.

    Of n patients of a stratum n - 1 are drawn with replacement, and count n / (n - 1) each (Rao & Wu 1988): n
    draws would make the variance too small by that factor, which is a third where a class has three patients. A
    patient who is alone in his stratum counts once.

    Args:
        stratum: int, P; the class of each patient.
        resamples, seed: as in `bootstrap_ci`.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((resamples, len(stratum)))
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        if (n := len(members)) > 1:
            weights[:, members] = rng.multinomial(n - 1, np.full(n, 1 / n), size=resamples) * n / (n - 1)
    return weights


def _resampled(parts: np.ndarray, stratum: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums, resamples×…, of patients' parts, P×…, by their weights in each resample."""
    sums: np.ndarray = np.tensordot(patient_weights(stratum, resamples, seed), parts, axes=1)
    return sums


def percentiles(values: np.ndarray, confidence: float) -> list[float]:
    """The middle of a statistic's values over resamples, [low, high]; what is NaN does not count."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    # Sums of weights leave rounding behind, and a value that never changes is to have no width at all.
    return [round(float(low), 12), round(float(high), 12)]


def curve_columns(name: str) -> tuple[str, str, str]:
    """Where an attack's curve (one row a radius) has a measure of `measured`, and the ends of its interval."""
    ends = {"accuracy": "", "balanced_accuracy": "balanced_"}.get(name, f"robust_{name}_")
    return f"robust_{name}", f"{ends}low", f"{ends}high"


def unanimous(patients: int, confidence: float) -> float:
    """How far from 0 (or 1) a rate can be that none (or all) of independent patients showed.

    The bound of Clopper & Pearson 1934 for no success in N trials: 1 - ((1 - confidence) / 2)^(1 / N).
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / patients))


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
    """What a clean evaluation reports; `<name>_ci` is the interval of `<name>`; scores' measures have none."""
    preds, graded = logprobs.argmax(1), ordered and len(classes) > 2
    summary: dict[str, Any] = {"n": len(labels), "patients": len(np.unique(patients))}
    found = measured(labels, preds, patients, classes, resamples=resamples, confidence=confidence)
    for name, (value, interval) in found.items():
        if graded or name != "quadratic_kappa":
            summary |= {name: value, f"{name}_ci": interval}
    if graded:
        summary["mean_grade_error"] = float(np.abs(preds - labels).mean())
    return summary | {"auroc": auroc(labels, logprobs), "ece": ece(labels, logprobs), "nll": nll(labels, logprobs)}


def headline(summary: dict[str, Any]) -> dict[str, float | None]:
    """What DVC shows of a `classification_summary`, at the decimals that balanced accuracy's interval supports."""
    interval = summary["balanced_accuracy_ci"]
    return {
        name: None if summary[name] is None else supported(summary[name], interval)
        for name in ("balanced_accuracy", "auroc", "ece")
    }


def best_found(value: float | None) -> float | None:
    """The best of many trials or epochs as DVC shows it: two decimals, because a best of many has no interval."""
    return None if value is None else round(value, 2)


def supported(value: float, interval: list[float]) -> float:
    """The value at the decimal of the first digit that half its interval reaches, two decimals at least.

    An interval without width is one of too few patients, or of a rate of 0 or 1, and supports no third decimal.
    """
    half = (interval[1] - interval[0]) / 2
    return round(value, max(2, math.ceil(-math.log10(half))) if half > 0 else 2)
