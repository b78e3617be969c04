"""Intervals resample whole patients, cover the truth as often as they claim, and determine rounding."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import coverage
from medrobust.core import intervals, metrics
from tests.core.predictions import draw


def test_intervals_by_patient_are_wider_than_by_image() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40) % 2, 25)
    right = np.repeat(rng.random(40) < 0.7, 25)
    preds = np.where(right, labels, 1 - labels)
    options = {"statistic": metrics.accuracy, "resamples": 500, "confidence": 0.95}
    by_patient = intervals.bootstrap_ci(labels, preds, np.repeat(np.arange(40), 25), 2, **options)  # type: ignore[arg-type]
    by_image = intervals.bootstrap_ci(labels, preds, np.arange(1000), 2, **options)  # type: ignore[arg-type]
    assert by_patient[1] - by_patient[0] > 3 * (by_image[1] - by_image[0])
    assert by_patient[0] <= right.mean() <= by_patient[1]


def test_the_interval_agrees_with_a_plain_bootstrap() -> None:
    labels, logprobs = draw(3, n=200)
    preds, patients = logprobs.argmax(1), np.arange(200)
    fast = intervals.bootstrap_ci(labels, preds, patients, 4, metrics.accuracy, resamples=4000, confidence=0.9)
    rng = np.random.default_rng(7)
    groups = [np.flatnonzero(labels == k) for k in range(4)]
    plain = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        plain.append((labels[rows] == preds[rows]).mean())
    assert fast == pytest.approx(np.quantile(plain, [0.05, 0.95]), abs=0.012)


def test_the_interval_of_a_mean_of_correct_predictions_is_that_of_accuracy() -> None:
    labels, logprobs = draw(2)
    preds, patients = logprobs.argmax(1), np.array([f"p{k // 3}" for k in range(len(labels))])
    order = np.argsort(labels, kind="stable")  # so that each patient has one class
    labels, preds = labels[order], preds[order]
    settings = {"resamples": 300, "confidence": 0.9}
    of_mean = intervals.mean_ci((labels == preds).astype(float), labels, patients, **settings)  # type: ignore[arg-type]
    of_matrix = intervals.bootstrap_ci(labels, preds, patients, 4, metrics.accuracy, **settings)  # type: ignore[arg-type]
    assert of_mean == pytest.approx(of_matrix)


def test_the_stratum_of_a_patient_is_the_majority_label_of_the_images() -> None:
    owner, labels = np.array([0, 0, 0, 1, 1, 2, 1, 1]), np.array([0, 2, 2, 1, 0, 3, 0, 1])
    assert intervals.strata(owner, labels).tolist() == [2, 0, 3]


def test_patients_are_drawn_within_their_class() -> None:
    stratum = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0])
    weights = intervals.patient_weights(stratum, 50)
    for k in range(3):
        assert weights[:, stratum == k].sum(1) == pytest.approx(np.full(50, (stratum == k).sum()))
    assert len(np.unique(weights, axis=0)) > 25
    weights = intervals.patient_weights(np.array([0, 1, 1]), 50)
    assert (weights[:, 0] == 1).all(), "the only patient of a stratum is in every resample"


@pytest.mark.parametrize("sizes", [(3,), (2, 5), (10, 7, 5, 3)])
def test_resamples_vary_as_much_as_new_patients_would(sizes: tuple[int, ...]) -> None:
    """The variance of a stratified mean is the sum of (n/N)²·s²/n, with s² over n - 1 (Cochran 1977, 5.3)."""
    rng = np.random.default_rng(sum(sizes))
    stratum, values = np.repeat(np.arange(len(sizes)), sizes), rng.random(sum(sizes))
    means = intervals.patient_weights(stratum, 40_000) @ values / len(values)
    parts = [values[stratum == k].var(ddof=1) * n for k, n in enumerate(sizes)]
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.var() == pytest.approx(sum(parts) / len(values) ** 2, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("recalls", [(0.6, 0.4, 0.5), (0.95, 0.75, 0.85)])
def test_intervals_of_many_patients_have_their_nominal_coverage(recalls: tuple[float, ...]) -> None:
    found = coverage((60, 50, 40), recalls, 4, 0.3, sets=150, confidence=0.9)
    for share, width in found.values():
        assert 0.83 <= share <= 0.97
        assert 0.03 < width < 0.2


def test_a_value_that_is_equal_in_all_resamples_has_an_interval_of_width_zero() -> None:
    labels = np.repeat([0, 1, 2], [28, 20, 12])
    patients = np.array([f"p{i // 4}" for i in range(60)])
    preds = np.where(labels == 1, 0, labels)
    for statistic, value in (
        (metrics.accuracy, 2 / 3),
        (metrics.balanced_accuracy, 2 / 3),
        (metrics.macro_f1, None),
    ):
        low, high = intervals.bootstrap_ci(labels, preds, patients, 3, statistic, resamples=200, confidence=0.95)
        assert low == high
        assert value is None or low == pytest.approx(value)


def test_the_bound_of_unanimous_patients_is_that_of_clopper_and_pearson() -> None:
    for patients in (1, 3, 25, 400):
        exact = stats.beta.ppf(0.975, 1, patients)  # upper bound for zero successes
        assert intervals.unanimous_margin(patients, 0.95) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([0.6, 0.8], 0.71), ([0.70, 0.72], 0.71), ([0.712, 0.713], 0.7123), ([0.7, 0.7], 0.71)],
)
def test_values_are_rounded_by_the_width_of_their_interval(interval: list[float], expected: float) -> None:
    assert intervals.round_to_interval(0.71234, interval) == expected
