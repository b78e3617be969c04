"""Decisions from scores agree with scikit-learn, with brute force and with what a reader expects."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as other_curve

from medrobust.core.decisions import (
    best_threshold,
    mean_roc,
    net_benefit,
    roc_curve,
    sensitivity_and_specificity,
    treat_all,
)
from medrobust.core.intervals import patient_weights
from medrobust.core.rates import rate_ci


def sample(seed: int, n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of patients with three images, probabilities with ties, patients."""
    rng = np.random.default_rng(seed)
    positive = np.repeat(rng.random(n // 3) < 0.4, 3)
    probabilities = (0.6 * rng.random(n) + 0.3 * positive).round(1) + 0.05
    return positive, probabilities, np.repeat([f"p{k:03}" for k in range(n // 3)], 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_that_of_scikit_learn(seed: int) -> None:
    positive, scores, _ = sample(seed)
    expected = other_curve(positive, scores, drop_intermediate=False)
    for mine, other in zip(roc_curve(positive, scores), expected, strict=True):
        assert mine == pytest.approx(other)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_area_under_the_mean_curve_is_the_macro_auroc(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % classes
    raw = rng.random((400, classes)) + 0.7 * np.eye(classes)[labels]
    probabilities = raw / raw.sum(1, keepdims=True)
    grid = np.linspace(0, 1, 4001)
    curve = mean_roc(labels, probabilities, grid)
    assert curve is not None
    columns = [1] if classes == 2 else range(classes)
    area = np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in columns])
    assert np.trapezoid(curve, grid) == pytest.approx(area, abs=1e-3)
    assert curve[-1] == 1
    assert mean_roc(np.zeros(5, dtype=int), np.full((5, 2), 0.5), grid) is None


def test_a_curve_shows_its_upper_end_where_it_rises() -> None:
    labels, scores = np.array([1, 1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    curve = mean_roc(labels, np.column_stack([1 - scores, scores]), np.array([0, 0.25, 0.5, 1]))
    assert curve == pytest.approx([2 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_largest_sum_of_sensitivity_and_specificity(seed: int) -> None:
    positive, scores, patients = sample(seed)
    found = best_threshold(positive, scores)
    assert found is not None

    def youden(threshold: float) -> float:
        called = scores >= threshold
        return float(called[positive].mean() + (~called)[~positive].mean())

    assert youden(found) == pytest.approx(max(map(youden, np.unique(scores))))
    assert not np.isclose(scores, found).any(), "it is between scores, not on one"
    rates = sensitivity_and_specificity(positive, scores >= found, patients, 0.95)
    assert rates["sensitivity"] + rates["specificity"] == pytest.approx(youden(found))  # type: ignore[operator]


def test_without_one_of_both_kinds_there_is_no_threshold_and_no_rate() -> None:
    assert best_threshold(np.ones(3, dtype=bool), np.arange(3.0)) is None
    assert best_threshold(np.zeros(3, dtype=bool), np.arange(3.0)) is None
    rates = sensitivity_and_specificity(np.ones(2, dtype=bool), np.array([True, False]), np.array(["a", "b"]), 0.9)
    assert rates["sensitivity"] == 0.5
    assert rates["specificity"] is None
    assert rates["specificity_ci"] is None


def test_intervals_of_sensitivity_are_over_patients() -> None:
    positive, scores, patients = sample(2)
    called = scores > 0.5
    rates = sensitivity_and_specificity(positive, called, patients, 0.9)
    names = np.unique(patients[positive])
    right = np.array([called[(patients == name) & positive].sum() for name in names])
    assert rates["sensitivity_ci"] == pytest.approx(rate_ci(right, np.full(len(names), 3), 0.9))


def test_net_benefit_counts_true_and_false_positives() -> None:
    positive, probabilities, patients = sample(1)
    thresholds = np.array([0.1, 0.35, 0.7])
    found = net_benefit(positive, probabilities, patients, thresholds, resamples=300, confidence=0.9)
    for (value, *_), t in zip(found, thresholds, strict=True):
        called = probabilities >= t
        true, false = (called & positive).sum(), (called & ~positive).sum()
        assert value == pytest.approx((true - false * t / (1 - t)) / len(positive))
    owner = np.unique(patients, return_inverse=True)[1]
    drawn = patient_weights(positive[::3].astype(int), 300)[:, owner]
    gains = (probabilities >= 0.35) * np.where(positive, 1, -0.35 / 0.65)
    by_hand = [np.average(gains, weights=weights) for weights in drawn]
    assert found[1, 1:] == pytest.approx(np.quantile(by_hand, [0.05, 0.95]))


def test_calling_all_positive_is_what_a_score_of_one_does() -> None:
    positive, _, patients = sample(4)
    thresholds = np.array([0.2, 0.5, 0.9])
    found = net_benefit(positive, np.ones(90), patients, thresholds, resamples=10, confidence=0.9)
    assert found[:, 0] == pytest.approx(treat_all(positive, thresholds))
    assert treat_all(positive, np.array([positive.mean()])) == pytest.approx([0])
