"""Detection measures against scikit-learn, resampling of patients, thresholds and curves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medrobust.detection.measures import (
    RATES,
    ScoredImages,
    by_class,
    clean_threshold,
    curve_points,
    roc_measures,
    summarise,
)


def sample(n: int, seed: int, gap: float, owners: int = 12) -> ScoredImages:
    """Predictions and scores on n images; the mean score is `gap`, and scores have ties."""
    rng = np.random.default_rng(seed)
    owner = np.arange(n) % owners
    labels = owner % 3
    preds = np.where(rng.random(n) < 0.8, labels, (labels + 1) % 3)
    patients = np.array([f"p{o:02}" for o in owner])
    return ScoredImages(labels, np.eye(3)[preds], patients, rng.normal(gap, 1, n).round(1))


def both(clean: ScoredImages, attacked: ScoredImages) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([clean.scores, attacked.scores])
    return scores, np.repeat([False, True], [len(clean), len(attacked)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.integers(2, 60), st.floats(-2, 3))
def test_measures_agree_with_scikit_learn(seed: int, n: int, m: int, gap: float) -> None:
    scores, side = both(sample(n, seed, 0), sample(m, seed + 1, gap))
    weights = np.random.default_rng(seed).integers(0, 4, len(side)).astype(float)
    weights[[0, -1]] = 1
    found = roc_measures(scores, side, weights[None])
    assert found["auroc"][0] == pytest.approx(sk.roc_auc_score(side, scores, sample_weight=weights))
    caught = sk.average_precision_score(side, scores, sample_weight=weights)
    assert found["auprc_attacked"][0] == pytest.approx(caught)
    assert found["auprc_clean"][0] == pytest.approx(
        sk.average_precision_score(~side, -scores, sample_weight=weights)
    )
    fpr, tpr, _ = sk.roc_curve(side, scores, sample_weight=weights, drop_intermediate=False)
    for rate in RATES:
        assert found[f"tpr_at_{rate:g}"][0] == pytest.approx(tpr[fpr <= rate + 1e-12].max())


def test_all_weightings_at_once_give_the_same_as_one_by_one() -> None:
    scores, side = both(sample(30, 0, 0), sample(25, 1, 1))
    weights = np.random.default_rng(0).integers(0, 3, (7, 55)).astype(float)
    together = roc_measures(scores, side, weights)
    for row in range(7):
        alone = roc_measures(scores, side, weights[row : row + 1])
        assert all(together[name][row] == pytest.approx(alone[name][0]) for name in alone)


def test_the_interval_counts_patients_and_not_images() -> None:
    few = sample(60, 0, 0, owners=6), sample(60, 1, 0.5, owners=6)
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 2, 6)
    few = tuple(replace(side, scores=side.scores + shift[np.arange(60) % 6]) for side in few)  # type: ignore[assignment]
    alone = tuple(replace(side, patients=np.array([f"q{i:02}" for i in range(60)])) for side in few)
    clustered = summarise(*few, resamples=400, confidence=0.95)
    naive = summarise(*alone, resamples=400, confidence=0.95)
    assert clustered["auroc"] == naive["auroc"]
    assert clustered["auroc_ci"][0] <= clustered["auroc"] <= clustered["auroc_ci"][1]
    assert np.ptp(clustered["auroc_ci"]) != pytest.approx(np.ptp(naive["auroc_ci"]), rel=0.1)


def test_the_summary_has_the_base_rate_and_both_directions() -> None:
    clean, attacked = sample(40, 0, 0), sample(10, 1, 2)
    found = summarise(clean, attacked, resamples=50, confidence=0.9)
    assert (found["n_clean"], found["n_attacked"], found["base_rate"]) == (40, 10, 0.2)
    scores, side = both(clean, attacked)
    assert found["auprc_clean"] == pytest.approx(sk.average_precision_score(~side, -scores))
    assert found["auprc_clean"] > found["auprc_attacked"]


def test_what_is_not_defined_is_none() -> None:
    clean, attacked = sample(10, 0, 0), sample(10, 1, 1)
    nobody = attacked.where(np.zeros(10, dtype=bool))
    assert summarise(clean, nobody, resamples=10, confidence=0.9)["auroc"] is None
    classes = by_class(clean.where(clean.labels != 2), attacked, ["a", "b", "c"], predicted=False)
    assert classes["c"]["auroc"] is None
    assert classes["a"]["auroc"] is not None


def test_classes_are_the_true_or_the_predicted_ones() -> None:
    clean, attacked = sample(60, 0, 0), sample(60, 1, 1)
    for predicted in (False, True):
        found = by_class(clean, attacked, ["a", "b", "c"], predicted=predicted)
        rows = [(side.preds if predicted else side.labels) == 1 for side in (clean, attacked)]
        scores, side = both(clean.where(rows[0]), attacked.where(rows[1]))
        assert found["b"]["auroc"] == pytest.approx(sk.roc_auc_score(side, scores))
        assert found["b"]["base_rate"] == pytest.approx(side.mean())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_a_threshold_is_the_lowest_that_rejects_no_more_than_asked(scores: list[float], rate: float) -> None:
    values = np.array(scores)
    threshold = clean_threshold(values, rate)
    assert (values > threshold).mean() <= rate + 1e-12
    lower = values[values < threshold]
    assert not len(lower) or (values > lower.max()).mean() > rate  # and the next lower one would


def test_curve_points_are_few_and_lie_on_the_curve() -> None:
    clean, attacked = sample(300, 0, 0), sample(200, 1, 1)
    points = curve_points(clean.scores, attacked.scores, 20)
    assert len(points) <= 20
    scores, side = both(clean, attacked)
    for point in points:
        caught = scores >= point["threshold"]
        assert point["precision"] == pytest.approx(sk.precision_score(side, caught))
        assert point["tpr"] == pytest.approx(sk.recall_score(side, caught))
    assert (points[-1]["fpr"], points[-1]["tpr"]) == (1, 1)
