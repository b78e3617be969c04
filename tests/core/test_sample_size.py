"""Planned half-widths are those of simulated test sets, and the planned number of patients is the smallest."""

import numpy as np
import pytest
from scipy.stats import binomtest

from medrobust.core.paired import paired_differences
from medrobust.core.rates import PatientCounts, rate_ci
from medrobust.core.sample_size import (
    Clustering,
    balanced_half_width,
    clustering,
    detectable_difference,
    deviation_of,
    half_width,
    patients_needed,
)


def draw(seed: int, patients: int, images: int, rate: float, correlation: float) -> np.ndarray:
    """Right answers of each patient: a beta-binomial, whose images have this correlation."""
    rng = np.random.default_rng(seed)
    if not correlation:
        return rng.binomial(images, rate, patients)
    spread = 1 / correlation - 1
    return rng.binomial(images, rng.beta(rate * spread, (1 - rate) * spread, patients))


def counts(right: np.ndarray, images: int) -> PatientCounts:
    return PatientCounts(right[:, None].astype(float), np.full((len(right), 1), float(images)))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_the_correlation_of_images_is_found(correlation: float) -> None:
    found = clustering([counts(draw(seed, 60, 4, 0.7, correlation), 4) for seed in range(20)])
    assert found.images == 4
    assert found.correlation == pytest.approx(correlation, abs=0.08)
    assert found.design_effect == pytest.approx(1 + 3 * found.correlation)


def test_extremes_of_clustering() -> None:
    unanimous = counts(np.array([4, 0, 4, 0, 0, 4]), 4)
    assert clustering([unanimous]).correlation == 1
    assert clustering([counts(np.array([1, 0, 1]), 1)]) == Clustering(1.0, 0.0)
    assert clustering([counts(np.array([4, 4]), 4)]).correlation == 1, "nothing is known: patients as the unit"
    assert clustering([]) == Clustering(1.0, 0.0)


def test_patients_of_different_size_count_by_their_images() -> None:
    sizes = np.array([1.0, 1.0, 4.0])
    assert clustering([PatientCounts(np.array([[1.0], [0], [2]]), sizes[:, None])]).images == 3


def test_the_half_width_of_single_images_is_the_exact_binomial_one() -> None:
    single = Clustering(1.0, 0.0)
    for patients, rate in ((20, 0.5), (50, 0.8)):
        low, high = binomtest(round(patients * rate), patients).proportion_ci(0.95)
        assert half_width(rate, patients, single, 0.95) == pytest.approx((high - low) / 2)
    assert half_width(0.5, 1, single, 0.95) == 0.5


@pytest.mark.parametrize("correlation", [0.2, 0.6])
@pytest.mark.parametrize("patients", [10, 40])
def test_the_planned_half_width_is_the_mean_one_of_simulated_test_sets(patients: int, correlation: float) -> None:
    ends = [rate_ci(draw(seed, patients, 4, 0.7, correlation), np.full(patients, 4), 0.95) for seed in range(400)]
    mean = np.mean([high - low for low, high in ends]) / 2
    assert half_width(0.7, patients, Clustering(4.0, correlation), 0.95) == pytest.approx(mean, rel=0.12)


@pytest.mark.parametrize(("width", "classes"), [(0.05, 1), (0.1, 1), (0.1, 4)])
def test_the_number_of_patients_is_the_smallest_that_is_enough(width: float, classes: int) -> None:
    cluster = Clustering(4.0, 0.5)
    found = patients_needed(width, 0.7, cluster, 0.95, classes=classes)
    assert found is not None
    widths = [balanced_half_width(0.7, [count] * classes, cluster, 0.95) for count in (found - 1, found)]
    assert widths[1] <= width < widths[0]
    assert patients_needed(1e-6, 0.5, cluster, 0.95) is None


def test_the_detectable_difference_is_found_in_four_of_five_test_sets() -> None:
    rng = np.random.default_rng(0)
    labels, patients = np.zeros(120, dtype=int), np.repeat([f"{k:02}" for k in range(40)], 3)

    def pair(gap: float) -> tuple[float, list[float]]:
        effect = np.repeat(rng.normal(size=40), 3)
        right = np.stack([effect + rng.normal(size=120) + shift > 0 for shift in (0, gap)], axis=1)
        found = paired_differences(
            right, labels, patients, [(1, 0)], balanced=False, resamples=200, confidence=0.95
        )[0]
        return found.p, found.interval

    deviation = deviation_of([pair(0.5)[1] for _ in range(40)], 0.95)
    wanted = detectable_difference(deviation, 40, 0.95)
    big = np.random.default_rng(1).normal(size=(2, 400_000))
    gap = next(g for g in np.arange(0.02, 2, 0.02) if ((big.sum(0) > -g).mean() - 0.5) >= wanted)
    found = np.mean([pair(float(gap))[0] < 0.05 for _ in range(150)])
    assert found == pytest.approx(0.8, abs=0.1)
