"""The record of a model on external images agrees with its parts, image by image and patient by patient."""

import numpy as np
import pytest
import torch

from medrobust.attacks.engine.evaluate import evaluate_suite
from medrobust.core.metrics import auroc
from medrobust.data.external import with_classes
from medrobust.external.evaluate import Settings, evaluate_images, evaluate_patients
from medrobust.models.aggregates import MeanLogProbability
from medrobust.models.patient import PatientModel
from medrobust.patients.subsets import patient_groups
from tests.patients.cohort import classifier, splits
from tests.small import CLASSES, fit, make_classifier, make_subset

SUITE = {
    "name": "pgd", "norm": "Linf", "eps": [0.02, 0.2], "give_up": False,
    "attacks": [{"name": "pgd", "hyperparameters": {"steps": 3}}],
}  # fmt: skip
SETTINGS = Settings(ordered=True, resamples=50, confidence=0.9, seed=3)


def test_images_are_evaluated_clean_and_under_each_suite() -> None:
    subset = make_subset("x", 9, 0)
    model = fit(make_classifier(), subset, 30)
    found = evaluate_images(model, None, subset, [SUITE], SETTINGS)
    record = found.record
    assert (record["n"], record["patients"], record["detectors"]) == (36, 9, {})
    assert record["counts"] == {name: {"images": 12, "patients": 3} for name in CLASSES}
    with torch.no_grad():
        logits = model(subset.batch(range(36)))
    preds = logits.argmax(1).numpy()
    assert record["clean"]["accuracy"] == np.mean(preds == subset.labels)
    assert record["clean"]["auroc"] == pytest.approx(auroc(subset.labels, logits.log_softmax(1).numpy()))
    low, high = record["clean"]["auroc_ci"]
    assert low <= record["clean"]["auroc"] <= high
    worst = evaluate_suite(model, subset, SUITE, seed=3)
    for eps, radius in (("0.02", 0.02), ("0.2", 0.2)):
        right = ~worst[worst["eps"] == radius]["fooled"].to_numpy(bool)
        row = record["attacks"]["pgd"][eps]
        assert row["robust_accuracy"] == right.mean()
        assert row["robust_balanced_accuracy"] == pytest.approx(right.mean()), "as many images of each class"
        assert row["robust_accuracy_ci"][0] <= right.mean() <= row["robust_accuracy_ci"][1]
    assert list(found.tables["clean"]["pred"]) == list(preds)
    assert {"id", "attack", "eps"} <= {*found.tables["pgd"]}


def test_classes_without_images_count_in_no_mean() -> None:
    whole = make_subset("x", 9, 0)
    part = with_classes(whole.take(np.flatnonzero(whole.labels < 2)), CLASSES)
    record = evaluate_images(make_classifier().eval(), None, part, [], SETTINGS).record
    recalls = [record["clean"][f"recall_{name}"] for name in CLASSES]
    assert recalls[2] is None
    assert record["clean"]["balanced_accuracy"] == pytest.approx((recalls[0] + recalls[1]) / 2)
    assert (record["clean"]["auroc"], record["clean"]["auroc_ci"]) == (None, None)
    assert record["counts"]["c"] == {"images": 0, "patients": 0}


def test_patients_are_evaluated_by_suites_that_can_attack_them() -> None:
    data = splits(slices=3)
    model = PatientModel(classifier(), MeanLogProbability(), 1).eval()
    single = {**SUITE, "name": "universal", "attacks": [{"name": "universal", "hyperparameters": {}}]}
    found = evaluate_patients(model, patient_groups(data, "test"), [SUITE, single], SETTINGS)
    patients = len(set(data.subset("test").patients))
    assert (found.record["n"], found.record["clean"]["n"]) == (patients, patients)
    assert list(found.record["attacks"]) == ["pgd"]
    assert found.tables["pgd"]["id"].nunique() == patients
    robust = [found.record["attacks"]["pgd"][eps]["robust_accuracy"] for eps in ("0.02", "0.2")]
    assert robust[1] <= robust[0] <= found.record["clean"]["accuracy"]
