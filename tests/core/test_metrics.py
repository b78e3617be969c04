"""Statistics agree with scikit-learn, and their intervals with scikit-learn on each resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medrobust.core import intervals, metrics
from medrobust.core.rates import PatientCounts
from tests.core.predictions import draw


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
def test_ties_and_absent_classes_agree_with_scikit_learn(seed: int) -> None:
    """Scores rounded to one decimal, so that many are equal; and predictions of a class that no image has."""
    labels, logprobs = draw(seed, k=3)
    coarse = np.round(np.exp(logprobs), 1)
    areas = [reference.roc_auc_score(labels == k, coarse[:, k]) for k in range(3)]
    assert metrics.auroc(labels, coarse) == pytest.approx(np.mean(areas))
    preds = logprobs.argmax(1)
    for missing in (labels != 2, (labels != 2) & (preds != 2)):
        matrix = metrics.confusion(labels[missing], preds[missing], 3)
        expected = reference.f1_score(labels[missing], preds[missing], average="macro")
        assert metrics.macro_f1(matrix) == pytest.approx(expected)


def test_mean_grade_error_is_absolute_and_kappa_of_one_class_is_undefined() -> None:
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


def test_values_and_intervals_of_all_statistics() -> None:
    """scikit-learn computes each resample of kappa and F1 with the patients' weights as sample weights."""
    rng = np.random.default_rng(5)
    labels, logprobs = draw(4, n=60, k=3)
    preds, patients = logprobs.argmax(1), np.array([f"p{label}{rng.integers(4)}" for label in labels])
    classes, settings = ["a", "b", "c"], {"resamples": 40, "confidence": 0.9}
    found = metrics.estimates(labels, preds, patients, classes, **settings)  # type: ignore[arg-type]
    owner = np.unique(patients, return_inverse=True)[1]
    weights = intervals.patient_weights(intervals.strata(owner, labels), 40)[:, owner]
    kappa = [reference.cohen_kappa_score(labels, preds, weights="quadratic", sample_weight=w) for w in weights]
    assert found["quadratic_kappa"].interval == pytest.approx(intervals.percentiles(np.array(kappa), 0.9))
    f1 = [reference.f1_score(labels, preds, average="macro", sample_weight=w) for w in weights]
    assert found["macro_f1"].interval == pytest.approx(intervals.percentiles(np.array(f1), 0.9))
    counts = PatientCounts.of(labels == preds, labels, patients, 3)
    for k, name in enumerate(classes):
        assert found[f"recall_{name}"].interval == counts.recall_ci(k, 0.9)
    assert found["accuracy"].interval == counts.accuracy_ci(0.9)
    assert found["balanced_accuracy"].interval == counts.balanced_accuracy_ci(0.9)
    recalls = reference.recall_score(labels, preds, average=None)
    assert [found[f"recall_{name}"].value for name in classes] == pytest.approx(recalls)
    assert found["balanced_accuracy"].value == pytest.approx(reference.balanced_accuracy_score(labels, preds))
    summary = metrics.classification_summary(
        labels, logprobs, patients, classes, ordered=True, resamples=40, confidence=0.9
    )
    for name, (value, interval) in found.items():
        assert (summary[name], summary[f"{name}_ci"]) == (value, interval)


def test_kappa_is_not_defined_if_all_images_are_of_one_class() -> None:
    labels = np.zeros(4, dtype=int)
    assert np.isnan(metrics.quadratic_kappa(metrics.confusion(labels, labels, 3)))
    found = metrics.estimates(labels, labels, np.arange(4), ["a", "b"], resamples=10, confidence=0.9)
    assert found["quadratic_kappa"] == metrics.Estimate(None, None)


def test_the_brier_score_agrees_with_scikit_learn() -> None:
    labels, logprobs = draw(1)
    truth = np.eye(4)[labels]
    expected = 4 * np.mean([reference.brier_score_loss(truth[:, k], np.exp(logprobs[:, k])) for k in range(4)])
    assert metrics.brier(labels, logprobs) == pytest.approx(expected)


def test_dvc_metrics_are_rounded_by_the_interval_of_balanced_accuracy() -> None:
    shown = {"balanced_accuracy": 0.71234, "auroc": 0.91239, "ece": None, "ece_null": 0.06789}
    rounded = {"balanced_accuracy": 0.712, "auroc": 0.912, "ece": None, "ece_null": 0.068}
    assert metrics.dvc_metrics({**shown, "balanced_accuracy_ci": [0.712, 0.714]}) == rounded
    assert [metrics.round_best(value) for value in (0.4567, None)] == [0.46, None]
