"""Intervals of rates agree with exact ones, contain the truth as often as they claim, and have a width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.intervals import coverage
from medrobust.core.rates import PatientCounts, rate_ci, share_ci, unanimous_margin


def clopper_pearson(rate: float, images: float, confidence: float) -> tuple[float, float]:
    """By the percentiles of scipy's beta distribution."""
    tail, right = (1 - confidence) / 2, rate * images
    low = stats.beta.ppf(tail, right, images - right + 1) if right > 0 else 0.0
    return low, stats.beta.ppf(1 - tail, right + 1, images - right) if right < images else 1.0


@given(st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_with_one_image_per_patient_the_interval_is_the_exact_binomial_one(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    exact = stats.binomtest(right, n).proportion_ci(0.95, method="exact")
    found = rate_ci(np.arange(n) < right, np.ones(n), 0.95)
    margin = 1 - 0.025 ** (1 / n)
    assert found == pytest.approx([min(exact.low, 1 - margin), max(exact.high, margin)])


def test_the_interval_of_clustered_images_is_that_of_korn_and_graubard() -> None:
    """Written out once more, for a rate so far from 0 and 1 that no bound of ours is active."""
    rng = np.random.default_rng(3)
    total = rng.integers(2, 9, 20)
    right = rng.binomial(total, rng.beta(1.5, 1.5, 20))
    images, rate = total.sum(), right.sum() / total.sum()
    spread = sum((a - rate * b) ** 2 for a, b in zip(right, total, strict=True)) * 20 / 19 / images**2
    design = spread / (rate * (1 - rate) / images)
    assert design > 1, "images of a patient are alike"
    effective = images / design * (stats.t.ppf(0.975, images - 1) / stats.t.ppf(0.975, 19)) ** 2
    assert effective > images**2 / (total**2).sum(), "this case is not at the lower bound"
    assert rate_ci(right, total, 0.95) == pytest.approx(clopper_pearson(rate, effective, 0.95))


def test_patients_whose_images_all_agree_count_as_one_image_each() -> None:
    right = np.repeat([1, 0], [7, 5])
    one = rate_ci(right, np.ones(12), 0.9)
    assert rate_ci(right * 30, np.full(12, 30), 0.9) == pytest.approx(one)
    assert one == pytest.approx(clopper_pearson(7 / 12, 12, 0.9))


@pytest.mark.parametrize("patients", [1, 2, 8, 40])
def test_more_errors_never_lower_the_upper_end_and_no_interval_has_zero_width(patients: int) -> None:
    """Percentiles of a bootstrap have zero width for unanimous patients, and one error made them wider."""
    ends = []
    for errors in range(5):
        right = np.full(patients, 4)
        right[0] -= errors
        low, high = rate_ci(right, np.full(patients, 4), 0.95)
        assert low < high
        assert low <= right.sum() / (4 * patients) <= high
        ends.append(low)
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(0.025 ** (1 / patients))


def test_the_bound_of_unanimous_patients_is_that_of_clopper_and_pearson() -> None:
    for patients in (1, 3, 25, 400):
        exact = stats.beta.ppf(0.975, 1, patients)  # upper bound for zero successes
        assert unanimous_margin(patients, 0.95) == pytest.approx(exact)


def counts_of(right: list[list[int]], total: list[list[int]]) -> PatientCounts:
    return PatientCounts(np.array(right, dtype=float), np.array(total, dtype=float))


def test_balanced_accuracy_adds_the_squares_of_the_distances_of_the_recalls() -> None:
    """Zou & Donner's method, written out for two classes without common patients."""
    rng = np.random.default_rng(0)
    first, second = rng.binomial(4, 0.7, 9), rng.binomial(4, 0.3, 14)
    right = np.zeros((23, 2))
    right[:9, 0], right[9:, 1] = first, second
    total = np.zeros((23, 2))
    total[:9, 0], total[9:, 1] = 4, 4
    found = PatientCounts(right, total).balanced_accuracy_ci(0.95)
    rates = [part.sum() / (4 * len(part)) for part in (first, second)]
    ends = [rate_ci(part, np.full(len(part), 4), 0.95) for part in (first, second)]
    low = sum(rates) / 2 - np.sqrt(sum((rate - end[0]) ** 2 for rate, end in zip(rates, ends, strict=True))) / 2
    high = sum(rates) / 2 + np.sqrt(sum((end[1] - rate) ** 2 for rate, end in zip(rates, ends, strict=True))) / 2
    assert found == pytest.approx([low, high])


def test_classes_that_share_patients_give_wider_intervals() -> None:
    """Two eyes of a patient with two labels: both are right, or both are wrong."""
    right = np.tile([[1, 1], [0, 0]], (10, 1))
    shared = PatientCounts(right, np.ones((20, 2))).balanced_accuracy_ci(0.95)
    apart = PatientCounts(
        np.concatenate([right * [1, 0], right * [0, 1]]), np.repeat([[1, 0], [0, 1]], 20, axis=0)
    ).balanced_accuracy_ci(0.95)
    assert shared[1] - shared[0] > 1.3 * (apart[1] - apart[0])
    assert shared == pytest.approx(rate_ci(right.sum(1), np.full(20, 2), 0.95), abs=1e-3)


def test_accuracy_is_narrow_both_for_equal_and_for_different_recalls() -> None:
    same = counts_of([[0, 0]] * 20, [[4, 0], [0, 4]] * 10)
    assert same.accuracy_ci(0.95) == pytest.approx([0, unanimous_margin(20, 0.95)])
    assert same.balanced_accuracy_ci(0.95)[1] > 1.2 * unanimous_margin(20, 0.95)
    apart = counts_of([[4, 0], [0, 0]] * 20, [[4, 0], [0, 4]] * 20)
    pooled = rate_ci(apart.right.sum(1), apart.total.sum(1), 0.95)
    low, high = apart.accuracy_ci(0.95)
    assert high - low < 0.6 * (pooled[1] - pooled[0])
    assert low < 0.5 < high


def test_a_class_without_images_is_left_out() -> None:
    right, total = np.tile([[3.0, 0.0]], (6, 1)), np.tile([[4.0, 0.0]], (6, 1))
    assert PatientCounts(right, total).balanced_accuracy_ci(0.9) == pytest.approx(
        rate_ci(right[:, 0], total[:, 0], 0.9)
    )


def test_the_interval_of_a_share_counts_images_by_patient_and_class() -> None:
    labels, patients = np.repeat([0, 1, 2], 12), np.repeat([f"p{k}" for k in range(9)], 4)
    right = np.arange(36) % 5 != 0
    found = share_ci(right, labels, patients, 0.95)
    counted = PatientCounts.of(right, labels, patients, 3)
    assert counted.total.sum(0).tolist() == [12, 12, 12]
    assert counted.right.sum() == right.sum()
    assert found == counted.accuracy_ci(0.95)


def holds(patients: int, rate: float, sets: int) -> None:
    """At least the confidence minus two points, at any correlation, and not as wide as to say nothing."""
    for images, correlation in ((4, 0.2), (4, 0.9), (32, 0.5)):
        found = coverage((patients,), (rate,), images, correlation, sets=sets, confidence=0.95)
        share, width = found["recall", "rates"]
        assert share >= 0.93
        if rate != 0.5:
            assert found["recall", "bootstrap"][0] < 0.85, "percentiles of a bootstrap miss the truth here"
            assert width < 1.4 * unanimous_margin(patients, 0.95)
        else:
            assert width < 1.35 * found["recall", "bootstrap"][1]


def test_intervals_of_recall_cover_the_truth_near_0() -> None:
    holds(8, 0.02, 60)


@pytest.mark.slow
@pytest.mark.parametrize("patients", [8, 15, 40])
@pytest.mark.parametrize("rate", [0.02, 0.5, 0.98])
def test_intervals_of_recall_cover_the_truth(patients: int, rate: float) -> None:
    holds(patients, rate, 400)


@pytest.mark.slow
@pytest.mark.parametrize("recalls", [(0.6, 0.4, 0.5, 0.45), (0.95, 0.75, 0.85, 0.83), (0.1, 0.05, 0.02, 0.02)])
def test_intervals_of_accuracies_cover_the_truth(recalls: tuple[float, ...]) -> None:
    found = coverage((10, 7, 5, 3), recalls, 4, 0.3, sets=300, confidence=0.95)
    for name in ("accuracy", "balanced accuracy"):
        assert found[name, "rates"][0] >= 0.93
