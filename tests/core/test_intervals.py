"""Intervals of a bootstrap resample whole patients, and determine rounding."""

import numpy as np
import pytest

from medrobust.core import intervals


def mean_of(values: np.ndarray, labels: np.ndarray, patients: np.ndarray, resamples: int = 500) -> list[float]:
    return intervals.mean_ci(values, labels, patients, resamples=resamples, confidence=0.9)


def test_intervals_by_patient_are_wider_than_by_image() -> None:
    rng = np.random.default_rng(1)
    labels, values = np.repeat(np.arange(40) % 2, 25), np.repeat(rng.exponential(size=40), 25)
    by_patient, by_image = (
        mean_of(values, labels, np.repeat(np.arange(40), 25)),
        mean_of(values, labels, np.arange(1000)),
    )
    assert by_patient[1] - by_patient[0] > 3 * (by_image[1] - by_image[0])
    assert by_patient[0] <= values.mean() <= by_patient[1]


def test_the_interval_agrees_with_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(7)
    labels, values = rng.integers(0, 4, 200), rng.exponential(size=200)
    fast = mean_of(values, labels, np.arange(200), 4000)
    groups = [np.flatnonzero(labels == k) for k in range(4)]
    plain = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        plain.append(values[rows].mean())
    assert fast == pytest.approx(np.quantile(plain, [0.05, 0.95]), abs=0.02)


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


def test_a_value_that_is_equal_in_all_resamples_has_an_interval_of_width_zero() -> None:
    labels, patients = np.repeat([0, 1, 2], [28, 20, 12]), np.array([f"p{i // 4}" for i in range(60)])
    low, high = mean_of(np.where(labels == 1, 0.3, 0.9), labels, patients)
    assert low == high == pytest.approx((40 * 0.9 + 20 * 0.3) / 60)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([0.6, 0.8], 0.71), ([0.70, 0.72], 0.71), ([0.712, 0.713], 0.7123), ([0.7, 0.7], 0.71)],
)
def test_values_are_rounded_by_the_width_of_their_interval(interval: list[float], expected: float) -> None:
    assert intervals.round_to_interval(0.71234, interval) == expected
