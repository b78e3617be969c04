"""The AUROC's interval is that of a resampled AUROC."""

import numpy as np
from sklearn.metrics import roc_auc_score

from medrobust.core.intervals import patient_weights, strata
from medrobust.core.ranking import auroc_ci, weighted_auroc


def test_the_interval_is_that_of_weighted_aurocs() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 30), 3)
    patients = np.repeat([f"p{n}" for n in range(30)], 3)
    scores = rng.normal(size=(90, 3)).round(1) + np.eye(3)[labels]
    owner = np.unique(patients, return_inverse=True)[1]
    weights = patient_weights(strata(owner, labels), 100)[:, owner]
    drawn = [
        np.mean([roc_auc_score(labels == k, scores[:, k], sample_weight=w) for k in range(3)]) for w in weights
    ]
    expected = np.quantile(drawn, [0.025, 0.975])
    interval = auroc_ci(labels, scores, patients, resamples=100, confidence=0.95)
    assert interval is not None
    assert np.allclose(interval, expected, atol=1e-9)


def test_an_absent_class_has_no_auroc() -> None:
    labels, patients = np.zeros(4, dtype=int), np.array(list("abcd"))
    assert auroc_ci(labels, np.zeros((4, 2)), patients, resamples=10, confidence=0.95) is None


def test_images_that_a_model_rules_out_count_as_lowest() -> None:
    """A probability of 0 has the logarithm -inf."""
    scores, positive = np.array([-np.inf, -np.inf, -1.0, -0.5]), np.array([False, True, False, True])
    assert weighted_auroc(positive, scores, np.ones((1, 4))).tolist() == [0.625]
