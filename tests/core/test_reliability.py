"""A calibrated model is found to be calibrated at every size of the test set, and a wrong one is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from medrobust.core import reliability
from tests.core.predictions import draw

OPTIONS = {"resamples": 400, "confidence": 0.95}


def model(rng: np.random.Generator, n: int, *, sharper: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a model's own probabilities (three classes); its log-odds are then made sharper."""
    logits = rng.normal(0, 1.5, (n, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random(n)[:, None] > shares.cumsum(1)).sum(1)
    logits = sharper * logits
    return labels, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def slow_ece(labels: np.ndarray, logprobs: np.ndarray, bins: int) -> float:
    """Over consecutive images of rising confidence, image by image."""
    order = sorted(range(len(labels)), key=lambda row: logprobs[row].max())
    total = 0.0
    for number in range(bins):
        rows = [row for place, row in enumerate(order) if place * bins // len(labels) == number]
        confidence = sum(float(np.exp(logprobs[row].max())) for row in rows)
        total += abs(confidence - sum(int(logprobs[row].argmax() == labels[row]) for row in rows))
    return total / len(labels)


@pytest.mark.parametrize(("n", "bins"), [(7, 1), (20, 1), (39, 1), (100, 5), (205, 10), (1000, 10)])
def test_the_calibration_error_agrees_with_a_slow_implementation(n: int, bins: int) -> None:
    labels, logprobs = draw(n, n=n)
    assert reliability.ece(labels, logprobs) == pytest.approx(slow_ece(labels, logprobs, bins))


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_a_calibrated_model_scores_what_is_printed_beside_it(n: int) -> None:
    """With 15 bins it scored 0.35 at n = 20 and 0.14 at n = 100, without a word."""
    rng, gaps, inside, errors = np.random.default_rng(n), [], [], []
    sets = 120 if n < 1000 else 40
    for _ in range(sets):
        labels, logprobs = model(rng, n)
        found = reliability.calibration(labels, logprobs, np.arange(n), **OPTIONS)  # type: ignore[arg-type]
        errors.append(found["ece"] - found["ece_null"])
        inside.append(found["ece"] <= found["ece_null_high"])
        gaps.append(found["confidence_gap"])
        assert found["ece_null"] < {20: 0.11, 100: 0.09, 1000: 0.04}[n]
    spread = 4 / np.sqrt(sets)
    assert abs(np.mean(errors)) < spread * np.std(errors), "the error is on average that of a calibrated model"
    assert abs(np.mean(gaps)) < spread * np.std(gaps)
    assert 0.88 <= np.mean(inside) <= 0.995


def test_an_overconfident_model_is_outside_and_its_slope_is_the_inverse_of_its_sharpness() -> None:
    rng = np.random.default_rng(0)
    labels, logprobs = model(rng, 4000, sharper=2.5)
    found = reliability.calibration(labels, logprobs, np.arange(4000) // 4, **OPTIONS)  # type: ignore[arg-type]
    assert found["ece"] > 3 * found["ece_null_high"]
    assert found["confidence_gap_ci"][0] > 0.1
    assert found["calibration_slope"] < 0.6
    assert found["calibration_slope_ci"][1] < 0.7
    labels, logprobs = model(rng, 4000)
    found = reliability.calibration(labels, logprobs, np.arange(4000) // 4, **OPTIONS)  # type: ignore[arg-type]
    for name, right in (("calibration_slope", 1.0), ("calibration_intercept", 0.0)):
        low, high = found[f"{name}_ci"]
        assert low < right < high < low + 0.6


def test_intervals_of_the_slope_contain_the_truth() -> None:
    """For two classes a sharper model has a known line: slope 1 / sharpness, intercept 0."""
    rng, covered = np.random.default_rng(4), []
    for _ in range(200):
        logit = rng.normal(0, 2, 120)
        labels = (rng.random(120) < 1 / (1 + np.exp(-logit))).astype(int)
        sharp = 2 * logit
        logprobs = -np.logaddexp(0, np.column_stack([sharp, -sharp]))
        found = reliability.calibration_line(labels, logprobs, np.arange(120), 0.95)
        interval = found["calibration_slope_ci"]
        assert isinstance(interval, list)
        covered.append(interval[0] <= 0.5 <= interval[1])
    assert np.mean(covered) >= 0.92


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_line_agrees_with_scikit_learn(seed: int) -> None:
    labels, logprobs = draw(seed, n=150, k=3)
    found = reliability.calibration_line(labels, logprobs, np.arange(150), 0.95)
    top = np.exp(logprobs.max(1))
    odds = np.log(top / (1 - top))[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, logprobs.argmax(1) == labels)
    expected = [fit.coef_[0, 0], fit.intercept_[0]]
    assert [found["calibration_slope"], found["calibration_intercept"]] == pytest.approx(expected, abs=1e-4)


def test_images_of_one_patient_count_once_in_the_interval_of_the_slope() -> None:
    """Ten copies of each image tell as much as one."""
    labels, logprobs = draw(5, n=80, k=3)
    once = reliability.calibration_line(labels, logprobs, np.arange(80), 0.9)
    copies = reliability.calibration_line(
        np.repeat(labels, 10), np.repeat(logprobs, 10, axis=0), np.repeat(np.arange(80), 10), 0.9
    )
    assert copies["calibration_slope_ci"] == pytest.approx(once["calibration_slope_ci"], abs=1e-5)


def test_no_line_fits_if_the_confidence_separates_right_from_wrong_predictions() -> None:
    logprobs = np.log(np.array([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5))
    for labels in (np.repeat([0, 1], 5), np.repeat([1, 0], 5), np.zeros(10, dtype=int), np.ones(10, dtype=int)):
        found = reliability.calibration_line(labels, logprobs, np.arange(10), 0.95)
        assert set(found.values()) == {None}
    same = np.log(np.full((10, 2), 0.5))
    assert reliability.calibration_line(np.arange(10) % 2, same, np.arange(10), 0.95)["calibration_slope"] is None


def test_a_certain_prediction_has_finite_log_odds() -> None:
    logprobs = np.array([[0.0, -np.inf], [0.0, -np.inf], np.log([0.6, 0.4]), np.log([0.7, 0.3])])
    found = reliability.calibration_line(np.array([0, 1, 0, 1]), logprobs, np.arange(4), 0.95)
    assert found["calibration_slope"] is not None
    assert np.isfinite(found["calibration_slope"])


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_the_calibration_error_does_not_depend_on_the_order_of_images(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top = rng.choice([0.6, 0.7, 0.9], n) if seed % 2 else rng.uniform(0.5, 1, n)
    labels, logprobs = rng.integers(0, 2, n), np.log(np.column_stack([top, 1 - top]))
    shuffled = rng.permutation(n)
    found = reliability.ece(labels, logprobs)
    assert reliability.ece(labels[shuffled], logprobs[shuffled]) == pytest.approx(found)


def test_calibration_of_known_cases() -> None:
    """One confidence for all images is one bin: the share of right predictions is compared with it."""
    logprobs = np.log(np.array([[0.8, 0.2]] * 10))
    assert reliability.ece(np.array([0] * 8 + [1] * 2), logprobs) == pytest.approx(0)
    overconfident = reliability.calibration(np.array([0] * 5 + [1] * 5), logprobs, np.arange(10), **OPTIONS)  # type: ignore[arg-type]
    assert overconfident["ece"] == overconfident["confidence_gap"] == pytest.approx(0.3)
    assert reliability.ece(np.repeat([0, 1], 50), np.log(np.full((100, 2), 0.5))) == pytest.approx(0)


def test_the_null_agrees_with_the_binomial_distribution() -> None:
    """All confidences equal: one bin, whose gap is that of a binomial count."""
    logprobs = np.log(np.array([[0.8, 0.2]] * 30))
    mean, high = reliability.calibrated_ece(logprobs, resamples=20_000, confidence=0.9)
    counts = np.random.default_rng(1).binomial(30, 0.8, 20_000)
    gaps = np.abs(counts / 30 - 0.8)
    assert mean == pytest.approx(gaps.mean(), rel=0.03)
    assert high == pytest.approx(np.quantile(gaps, 0.9), abs=1e-9)
