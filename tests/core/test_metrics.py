"""Statistics agree with scikit-learn; intervals keep patients together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from benchmarks.intervals import coverage
from medrobust.core import metrics


def draw(seed: int, n: int = 120, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(0, 1, (n, k)) + 1.5 * np.eye(k)[labels]
    return labels, logits - np.log(np.exp(logits).sum(1, keepdims=True))


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_point_estimates_agree_with_scikit_learn(seed: int, k: int) -> None:
    labels, logprobs = draw(seed, k=k)
    preds = logprobs.argmax(1)
    matrix = metrics.confusion(labels, preds, k)
    assert np.array_equal(matrix, reference.confusion_matrix(labels, preds, labels=range(k)))
    assert metrics.accuracy(matrix) == pytest.approx(reference.accuracy_score(labels, preds))
    assert metrics.balanced_accuracy(matrix) == pytest.approx(reference.balanced_accuracy_score(labels, preds))
    assert metrics.macro_f1(matrix) == pytest.approx(reference.f1_score(labels, preds, average="macro"))
    kappa = reference.cohen_kappa_score(labels, preds, weights="quadratic")
    assert metrics.quadratic_kappa(matrix) == pytest.approx(kappa)
    assert metrics.nll(labels, logprobs) == pytest.approx(
        reference.log_loss(labels, np.exp(logprobs), labels=range(k))
    )
    if k > 2:
        area = reference.roc_auc_score(labels, np.exp(logprobs), multi_class="ovr")
        assert metrics.auroc(labels, logprobs) == pytest.approx(area)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_ties_count_half_and_absent_classes_are_scikit_learn_s(seed: int) -> None:
    """Scores of one decimal, many of them equal; and predictions of a class that no image has."""
    labels, logprobs = draw(seed, k=3)
    coarse = np.round(np.exp(logprobs), 1)
    areas = [reference.roc_auc_score(labels == k, coarse[:, k]) for k in range(3)]
    assert metrics.auroc(labels, coarse) == pytest.approx(np.mean(areas))
    preds = logprobs.argmax(1)
    for missing in (labels != 2, (labels != 2) & (preds != 2)):
        matrix = metrics.confusion(labels[missing], preds[missing], 3)
        expected = reference.f1_score(labels[missing], preds[missing], average="macro")
        assert metrics.macro_f1(matrix) == pytest.approx(expected)


def test_grades_are_measured_either_way_and_agreement_of_one_class_is_undefined() -> None:
    assert np.isnan(metrics.quadratic_kappa(np.diag([5, 0, 0])))
    labels, preds = np.array([0, 1, 2, 2]), np.array([2, 0, 2, 1])
    logprobs = np.log(0.7 * np.eye(3)[preds] + 0.1)
    patients = np.array(["a", "b", "c", "d"])
    options = {"resamples": 20, "confidence": 0.9}
    summary = metrics.classification_summary(labels, logprobs, patients, list("abc"), ordered=True, **options)  # type: ignore[arg-type]
    assert summary["mean_grade_error"] == pytest.approx((2 + 1 + 0 + 1) / 4)


def test_an_absent_class_is_none() -> None:
    labels, logprobs = draw(0)
    logprobs = logprobs[labels != 3]
    labels = labels[labels != 3]
    assert metrics.auroc(labels, logprobs) is None
    classes = ["a", "b", "c", "d"]
    patients = np.array([f"p{i}" for i in range(len(labels))])
    summary = metrics.classification_summary(
        labels, logprobs, patients, classes, ordered=True, resamples=50, confidence=0.95
    )
    assert summary["recall_d"] is None
    assert summary["recall_d_ci"] is None
    assert summary["recall_a"] is not None


def test_calibration_error_of_a_known_case() -> None:
    logprobs = np.log(np.array([[0.8, 0.2]] * 10))
    assert metrics.ece(np.array([0] * 8 + [1] * 2), logprobs, bins=1) == pytest.approx(0)
    assert metrics.ece(np.array([0] * 5 + [1] * 5), logprobs, bins=1) == pytest.approx(0.3)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_calibration_error_does_not_depend_on_the_order_of_images(n: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top = rng.choice([0.6, 0.7, 0.9], n) if seed % 2 else rng.uniform(0.5, 1, n)
    labels, logprobs = rng.integers(0, 2, n), np.log(np.column_stack([top, 1 - top]))
    shuffled = rng.permutation(n)
    found = metrics.ece(labels, logprobs, bins)
    assert metrics.ece(labels[shuffled], logprobs[shuffled], bins) == pytest.approx(found)
    if len(np.unique(top)) == n and n % bins == 0:
        parts = np.split(np.argsort(top), bins)
        assert found == pytest.approx(sum(abs(((labels[p] == 0) - top[p]).sum()) for p in parts) / n)


def test_one_confidence_for_all_images_is_one_bin() -> None:
    """A model that always gives the same answer, with the share of its class for confidence, is calibrated."""
    logprobs = np.log(np.full((100, 2), 0.5))
    assert metrics.ece(np.repeat([0, 1], 50), logprobs) == pytest.approx(0)


def test_intervals_by_patient_are_wider_than_by_image() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40) % 2, 25)
    right = np.repeat(rng.random(40) < 0.7, 25)
    preds = np.where(right, labels, 1 - labels)
    options = {"statistic": metrics.accuracy, "resamples": 500, "confidence": 0.95}
    by_patient = metrics.bootstrap_ci(labels, preds, np.repeat(np.arange(40), 25), 2, **options)  # type: ignore[arg-type]
    by_image = metrics.bootstrap_ci(labels, preds, np.arange(1000), 2, **options)  # type: ignore[arg-type]
    assert by_patient[1] - by_patient[0] > 3 * (by_image[1] - by_image[0])
    assert by_patient[0] <= right.mean() <= by_patient[1]


def test_the_interval_agrees_with_a_plain_bootstrap() -> None:
    labels, logprobs = draw(3, n=200)
    preds, patients = logprobs.argmax(1), np.arange(200)
    fast = metrics.bootstrap_ci(labels, preds, patients, 4, metrics.accuracy, resamples=4000, confidence=0.9)
    rng = np.random.default_rng(7)
    groups = [np.flatnonzero(labels == k) for k in range(4)]
    plain = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        plain.append((labels[rows] == preds[rows]).mean())
    assert fast == pytest.approx(np.quantile(plain, [0.05, 0.95]), abs=0.012)


def test_every_measure_of_the_matrix_has_the_interval_of_its_values_over_resamples() -> None:
    """Against scikit-learn, asked for each resample with the patients' weights on the images."""
    rng = np.random.default_rng(5)
    labels, logprobs = draw(4, n=60, k=3)
    preds, patients = logprobs.argmax(1), np.array([f"p{label}{rng.integers(4)}" for label in labels])
    classes, settings = ["a", "b", "c"], {"resamples": 40, "confidence": 0.9}
    found = metrics.measured(labels, preds, patients, classes, **settings)  # type: ignore[arg-type]
    owner = np.unique(patients, return_inverse=True)[1]
    weights = metrics.patient_weights(metrics.strata(owner, labels), 40, 0)[:, owner]
    kappa = [reference.cohen_kappa_score(labels, preds, weights="quadratic", sample_weight=w) for w in weights]
    assert found["quadratic_kappa"].interval == pytest.approx(metrics.percentiles(np.array(kappa), 0.9))
    f1 = [reference.f1_score(labels, preds, average="macro", sample_weight=w) for w in weights]
    assert found["macro_f1"].interval == pytest.approx(metrics.percentiles(np.array(f1), 0.9))
    recalls = np.array([reference.recall_score(labels, preds, average=None, sample_weight=w) for w in weights])
    for name, column in zip(classes, recalls.T, strict=True):
        assert found[f"recall_{name}"].interval == pytest.approx(metrics.percentiles(column, 0.9))
    summary = metrics.classification_summary(
        labels, logprobs, patients, classes, ordered=True, resamples=40, confidence=0.9
    )
    for name, (value, interval) in found.items():
        assert (summary[name], summary[f"{name}_ci"]) == (value, interval)


def test_kappa_is_not_defined_where_all_is_one_class() -> None:
    labels = np.zeros(4, dtype=int)
    assert np.isnan(metrics.quadratic_kappa(metrics.confusion(labels, labels, 3)))
    found = metrics.measured(labels, labels, np.arange(4), ["a", "b"], resamples=10, confidence=0.9)
    assert found["quadratic_kappa"] == metrics.Measured(None, None)


def test_the_brier_score_agrees_with_scikit_learn() -> None:
    labels, logprobs = draw(1)
    truth = np.eye(4)[labels]
    expected = 4 * np.mean([reference.brier_score_loss(truth[:, k], np.exp(logprobs[:, k])) for k in range(4)])
    assert metrics.brier(labels, logprobs) == pytest.approx(expected)


def test_the_interval_of_a_mean_is_that_of_accuracy_for_right_and_wrong() -> None:
    labels, logprobs = draw(2)
    preds, patients = logprobs.argmax(1), np.array([f"p{k // 3}" for k in range(len(labels))])
    order = np.argsort(labels, kind="stable")  # patients of one class, as they are
    labels, preds = labels[order], preds[order]
    settings = {"resamples": 300, "confidence": 0.9}
    of_mean = metrics.mean_ci((labels == preds).astype(float), labels, patients, **settings)  # type: ignore[arg-type]
    of_matrix = metrics.bootstrap_ci(labels, preds, patients, 4, metrics.accuracy, **settings)  # type: ignore[arg-type]
    assert of_mean == pytest.approx(of_matrix)


def test_a_patient_is_of_the_class_that_most_of_his_images_are_of() -> None:
    owner, labels = np.array([0, 0, 0, 1, 1, 2, 1, 1]), np.array([0, 2, 2, 1, 0, 3, 0, 1])
    assert metrics.strata(owner, labels).tolist() == [2, 0, 3]


def test_patients_are_drawn_within_their_class() -> None:
    stratum = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0])
    weights = metrics.patient_weights(stratum, 50, 0)
    for k in range(3):
        assert weights[:, stratum == k].sum(1) == pytest.approx(np.full(50, (stratum == k).sum()))
    assert len(np.unique(weights, axis=0)) > 25
    assert (metrics.patient_weights(np.array([0, 1, 1]), 50, 0)[:, 0] == 1).all(), "one alone is always there"


@pytest.mark.parametrize("sizes", [(3,), (2, 5), (10, 7, 5, 3)])
def test_resamples_vary_as_much_as_new_patients_would(sizes: tuple[int, ...]) -> None:
    """The variance of a stratified mean is the sum of (n/N)²·s²/n, with s² over n - 1 (Cochran 1977, 5.3)."""
    rng = np.random.default_rng(sum(sizes))
    stratum, values = np.repeat(np.arange(len(sizes)), sizes), rng.random(sum(sizes))
    means = metrics.patient_weights(stratum, 40_000, 0) @ values / len(values)
    parts = [values[stratum == k].var(ddof=1) * n for k, n in enumerate(sizes)]
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.var() == pytest.approx(sum(parts) / len(values) ** 2, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("recalls", [(0.6, 0.4, 0.5), (0.95, 0.75, 0.85)])
def test_intervals_of_many_patients_hold_the_truth_as_often_as_they_say(recalls: tuple[float, ...]) -> None:
    found = coverage((60, 50, 40), recalls, 4, 0.3, sets=150, confidence=0.9)
    for share, width in found.values():
        assert 0.83 <= share <= 0.97
        assert 0.03 < width < 0.2


def test_a_value_that_all_resamples_share_has_no_width() -> None:
    labels = np.repeat([0, 1, 2], [28, 20, 12])
    patients = np.array([f"p{i // 4}" for i in range(60)])
    preds = np.where(labels == 1, 0, labels)
    for statistic, value in (
        (metrics.accuracy, 2 / 3),
        (metrics.balanced_accuracy, 2 / 3),
        (metrics.macro_f1, None),
    ):
        low, high = metrics.bootstrap_ci(labels, preds, patients, 3, statistic, resamples=200, confidence=0.95)
        assert low == high
        assert value is None or low == pytest.approx(value)


def test_the_bound_of_unanimous_patients_is_that_of_clopper_and_pearson() -> None:
    for patients in (1, 3, 25, 400):
        exact = stats.beta.ppf(0.975, 1, patients)  # the upper end for no success
        assert metrics.unanimous(patients, 0.95) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([0.6, 0.8], 0.71), ([0.70, 0.72], 0.71), ([0.712, 0.713], 0.7123), ([0.7, 0.7], 0.71)],
)
def test_numbers_are_rounded_to_what_their_interval_supports(interval: list[float], expected: float) -> None:
    assert metrics.supported(0.71234, interval) == expected


def test_a_headline_is_rounded_to_what_balanced_accuracy_supports() -> None:
    summary = {"balanced_accuracy": 0.71234, "auroc": 0.91239, "ece": None, "balanced_accuracy_ci": [0.712, 0.714]}
    assert metrics.headline(summary) == {"balanced_accuracy": 0.712, "auroc": 0.912, "ece": None}
    assert [metrics.best_found(value) for value in (0.4567, None)] == [0.46, None]
