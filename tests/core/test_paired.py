"""Paired differences agree with SciPy, with brute force, and with what they promise on simulated models."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import permutation_test

from medrobust.core.intervals import patient_weights, strata
from medrobust.core.metrics import balanced_accuracy, confusion
from medrobust.core.paired import (
    holm,
    image_weights,
    paired_differences,
    resampled_accuracies,
    sign_flip,
)


def models(seed: int, shift: float = 0.0, patients: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of two models with effects of patients in common; labels; patients with one to four images."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, patients)
    owner, label = np.repeat(np.arange(patients), sizes), np.repeat(np.arange(patients) % 3, sizes)
    common = rng.normal(size=patients)[owner]
    own = rng.normal(size=(2, patients))[:, owner]
    noise = rng.normal(size=(2, len(owner)))
    right = np.stack([common + own[k] + noise[k] + (shift if k else 0) > 0 for k in range(2)], axis=1)
    return right, label, np.array([f"{number:05}" for number in owner])


def test_signs_of_whole_patients_are_flipped() -> None:
    gain = np.array([1.0, 1.0, 1.0, 1.0, -1.0, 0.0])
    patients = np.array(["a", "a", "b", "b", "c", "d"])
    sums = (2, 2, -1)
    by_hand = np.mean([abs(np.dot(signs, sums)) >= 3 for signs in product((-1, 1), repeat=3)])
    assert sign_flip(gain, patients) == by_hand == 0.5
    assert sign_flip(gain, np.array(list("abcdef"))) == pytest.approx(12 / 32)


def test_no_difference_has_p_1_and_many_patients_agree_with_the_exact_test() -> None:
    assert sign_flip(np.zeros(4), np.array(list("aabb"))) == 1
    assert sign_flip(np.ones(8), np.array(list("abcdefgh"))) == 2 / 2**8
    gain = np.r_[np.ones(10), -np.ones(4)]
    exact = np.mean([abs(sum(signs)) >= 6 for signs in product((-1, 1), repeat=14)])
    assert sign_flip(gain, np.array([str(n) for n in range(14)])) == pytest.approx(exact, abs=0.02)


def test_under_no_difference_p_is_small_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat([str(n) for n in range(10)], 3)
    found = [sign_flip(np.repeat(rng.integers(-1, 2, 10), 3).astype(float), patients) for _ in range(300)]
    assert np.mean(np.array(found) < 0.05) <= 0.08


@pytest.mark.parametrize("seed", range(3))
def test_p_is_that_of_scipys_paired_permutation_test_of_patients(seed: int) -> None:
    right, labels, patients = models(seed, 0.5, patients=10)
    (found,) = paired_differences(right, labels, patients, [(1, 0)], balanced=True, resamples=10, confidence=0.95)
    weights = image_weights(labels, balanced=True)
    sums = [np.bincount(patients.astype(int), weights * right[:, k]) for k in range(2)]
    other = permutation_test(
        (sums[1], sums[0]), lambda a, b: abs(np.sum(a - b)), permutation_type="samples",
        alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert found.p == pytest.approx(other.pvalue, abs=1e-12)
    assert found.value == pytest.approx(sum(sums[1]) - sum(sums[0]))


@pytest.mark.parametrize("balanced", [False, True])
def test_value_and_interval_are_those_of_resampled_confusion_matrices(balanced: bool) -> None:
    right, labels, patients = models(3)
    owner = patients.astype(int)
    drawn = patient_weights(strata(owner, labels), 200)
    predictions = np.where(right, labels[:, None], (labels[:, None] + 1) % 3)

    def accuracy(weights: np.ndarray, k: int) -> float:
        counts = np.zeros((3, 3))
        np.add.at(counts, (labels, predictions[:, k]), weights[owner])
        share = balanced_accuracy(counts) if balanced else np.trace(counts) / counts.sum()
        return float(share)

    by_hand = [accuracy(weights, 0) - accuracy(weights, 1) for weights in drawn]
    pairs = [(0, 1), (1, 0)]
    one, other = paired_differences(
        right, labels, patients, pairs, balanced=balanced, resamples=200, confidence=0.9
    )
    assert one.interval == pytest.approx([*np.quantile(by_hand, [0.05, 0.95])], abs=1e-12)
    assert other.interval == pytest.approx([-one.interval[1], -one.interval[0]])
    ones = np.ones(owner.max() + 1)
    assert one.value == pytest.approx(accuracy(ones, 0) - accuracy(ones, 1)) == -other.value
    if balanced:
        assert one.value == pytest.approx(
            balanced_accuracy(confusion(labels, predictions[:, 0], 3))
            - balanced_accuracy(confusion(labels, predictions[:, 1], 3))
        )


def test_holms_correction_is_the_closed_test_of_bonferroni() -> None:
    """A hypothesis is rejected if all intersections with it are (Marcus et al. 1976): Holm's shortcut is exact."""
    rng = np.random.default_rng(1)
    for p in (rng.random(5) ** 3, np.array([0.01, 0.01, 0.04, 0.5]), np.array([0.2])):
        families = [family for size in range(1, len(p) + 1) for family in combinations(range(len(p)), size)]
        closed = [
            max(min(1.0, len(family) * p[list(family)].min()) for family in families if number in family)
            for number in range(len(p))
        ]
        assert holm(p.tolist()) == pytest.approx(closed)
    assert holm([]) == []


def test_a_class_that_no_resample_must_hold_is_left_out_of_the_mean() -> None:
    """All images of class 1 are of a patient who counts for class 0, and who is not drawn in every resample."""
    right = np.array([[True], [True], [False], [False], [True]])
    labels, patients = np.array([0, 0, 1, 0, 0]), np.array(list("aaabb"))
    drawn = resampled_accuracies(right, labels, patients, balanced=True, resamples=50)
    assert set(drawn[:, 0].round(3)) == {0.5}, "a alone: mean of 1 and 0; b alone: its class 0 is half right"


def test_the_interval_holds_the_true_difference_and_the_test_errs_as_often_as_promised() -> None:
    big = models(0, 0.4, patients=30_000)
    truth = big[0][:, 1].mean() - big[0][:, 0].mean()
    covered, found = [], []
    for seed in range(200):
        pair = paired_differences(
            *models(seed + 1, 0.4), [(1, 0)], balanced=False, resamples=300, confidence=0.95
        )[0]
        covered.append(pair.interval[0] <= truth <= pair.interval[1])
        found.append(sign_flip_of_equals(seed) < 0.05)
    assert np.mean(covered) > 0.9
    assert np.mean(found) < 0.075


def sign_flip_of_equals(seed: int) -> float:
    right, labels, patients = models(seed + 1000)
    gain = image_weights(labels, balanced=False) * (right[:, 0].astype(float) - right[:, 1])
    return sign_flip(gain, patients)
