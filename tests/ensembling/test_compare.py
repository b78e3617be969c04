"""Scores out of fold are of ensembles fitted without the patient, and methods that cannot be fitted are named."""

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.core import metrics
from medrobust.core.params.report import ReportParams
from medrobust.core.params.training import AdvParams
from medrobust.data.store import Subset
from medrobust.ensembling.compare import compare
from medrobust.ensembling.fit import (
    fit_combination,
    fit_summary,
    parameters_by_member,
    predict_validation,
)
from medrobust.ensembling.registry import METHODS
from tests.ensembling.drawn_predictions import draw, settings
from tests.params import default_block

REPORT = ReportParams(title="t", bootstrap=40, confidence=0.9, pictures=True, cases=0, repeated=[])


def pictures(count: int = 24) -> Subset:
    """Images of 8×8 pixels, two per patient."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    ids = np.array([f"i{k}" for k in range(count)])
    patients = np.array([f"p{k // 2}" for k in range(count)])
    return Subset(pixels, np.arange(count), np.arange(count) // 2 % 3, ids, patients, ["c0", "c1", "c2"])


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


def test_every_method_is_compared_on_validation_and_test() -> None:
    test, sample = pictures(), draw([1.5, 1.0])
    test_logprobs = draw([1.0, 1.0], seed=3, patients=12, slices=2).clean
    comparison = compare(sample, test, test_logprobs, settings(), REPORT)
    assert set(comparison.records) == set(comparison.combinations) == set(METHODS)
    for name, record in comparison.records.items():
        assert comparison.combinations[name] == fit_combination(sample, settings(method=name))
        logprobs = fit_combination(sample, settings(method=name)).combine(test_logprobs)
        assert record["test_accuracy"] == pytest.approx((logprobs.argmax(1) == test.labels).mean())
        assert record["test_log_loss"] == pytest.approx(metrics.nll(test.labels, logprobs))
        low, high = record["test_accuracy_ci"]
        assert low <= record["test_accuracy"] <= high
        assert record["val_log_loss"] < record["val_robust_log_loss"]


def test_equal_out_of_fold_is_equal_and_a_fit_is_worse_than_in_sample() -> None:
    sample, params = draw([1.0, 1.0, 1.0], patients=9), settings(c_grid=[10.0])
    comparison = compare(sample, pictures(), draw([1.0] * 3, patients=12, slices=2).clean, params, REPORT).records
    mean = np.log(np.exp(sample.clean).mean(0))
    assert comparison["equal"]["val_log_loss"] == pytest.approx(metrics.nll(sample.labels, mean), abs=1e-6)
    inside = fit_combination(sample, settings(method="stacking", c_grid=[10.0])).combine(sample.clean)
    assert comparison["stacking"]["val_log_loss"] > metrics.nll(sample.labels, inside)


def test_patients_predicted_out_of_fold_have_no_part_in_selecting_the_penalty() -> None:
    """A penalty selected on all patients would give a loss that is too small."""
    sample, params = draw([1.0, 1.0], patients=12), settings(c_grid=[1e-4, 1e-2, 1.0, 100.0], folds=4)
    test_logprobs = draw([1.0, 1.0], patients=12, slices=2).clean
    comparison = compare(sample, pictures(), test_logprobs, params, REPORT).records
    for name in ("stacking", "blending"):
        logprobs = np.empty_like(sample.clean[0])
        for rest, fold in sample.folds(4):
            own = fit_combination(sample.select(rest), settings(**{**params.model_dump(), "method": name}))
            logprobs[fold] = own.combine(sample.clean[:, fold])
        assert comparison[name]["val_log_loss"] == pytest.approx(metrics.nll(sample.labels, logprobs))


def test_two_patients_of_a_class_are_enough_for_scores_out_of_fold() -> None:
    """With one of them held out, the other is needed for the fit and cannot be used to select the penalty too."""
    sample = draw([1.0, 1.0], patients=20)
    sample = sample.select((sample.labels != 1) | np.isin(sample.patients, ["p1", "p4"]))
    comparison = compare(
        sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT
    ).records
    for name in METHODS:
        assert comparison[name]["val_log_loss"] > 0, comparison[name]


def test_methods_that_validation_does_not_allow_are_named_and_the_others_are_fitted() -> None:
    sample = draw([1.0, 1.0])
    sample = sample.select(sample.labels != 2)
    comparison = compare(sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT)
    assert "too few validation patients have c2" in comparison.records["stacking"]["not_fitted"]
    assert "too few validation patients have c2" in comparison.records["blending"]["not_fitted"]
    assert set(comparison.combinations) == {"equal", "convex"}
    assert "test_accuracy" in comparison.records["convex"]


def test_one_patient_allows_an_ensemble_but_no_scores_out_of_fold() -> None:
    """Methods without folds are fitted and evaluated on test images; only their validation scores are missing."""
    sample = draw([1.0, 1.0], patients=1, slices=6)
    comparison = compare(sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT)
    assert set(comparison.combinations) == {"equal", "convex"}
    for name in comparison.combinations:
        record = comparison.records[name]
        assert "6 validation images of 1 patients cannot be divided into folds" in record["val_missing"]
        assert "val_log_loss" not in record
        assert "test_accuracy_ci" in record
    assert "cannot be divided into folds" in comparison.records["stacking"]["not_fitted"]


def test_all_members_get_the_same_attacked_images() -> None:
    """The attack is made on the ensemble; the images differ from the clean ones."""
    adv = default_block(AdvParams, "adv", eps=0.1, steps=2, epochs=1, lr_scale=1.0)
    members = [member(0), member(1)]
    sample = predict_validation(members, pictures(), adv, seed=0)
    alone = predict_validation(members[:1], pictures(), adv, seed=0)
    assert sample.clean.shape == sample.robust.shape == (2, 24, 3)
    assert np.allclose(sample.clean[0], alone.clean[0])
    assert not np.allclose(sample.robust[0], alone.robust[0])
    rows = np.arange(24)
    mean = [np.log(np.exp(part).mean(0))[rows, sample.labels].mean() for part in (sample.clean, sample.robust)]
    assert mean[1] < mean[0]


def test_the_card_names_active_members_and_validation_images() -> None:
    sample = draw([3.0, 0.0])
    params = settings(min_weight=0.3)
    combination = fit_combination(sample, params)
    facts = fit_summary(["x-adv", "y-clean"], combination, sample, params)
    assert parameters_by_member(["x-adv", "y-clean"], combination) == {"weights": {"x-adv": 1.0, "y-clean": 0.0}}
    assert facts["val_n"] == 80
    assert facts["val_patients"] == 20
    text = "convex ensemble of x-adv, fitted on 80 validation images of 20 patients; weight 0, not run: y-clean"
    assert facts["fitted_on"] == f"{text}; an ensemble of one model is that model"


def test_an_ensemble_of_one_member_is_named_as_such() -> None:
    sample = draw([1.0])
    params = settings(temperature=True)
    combination = fit_combination(sample, params)
    assert (
        "an ensemble of one model is that model"
        in fit_summary(["x-adv"], combination, sample, params)["fitted_on"]
    )
    assert set(parameters_by_member(["x-adv"], combination)) == {"weights", "temperatures"}


def test_a_class_absent_from_validation_is_named() -> None:
    sample = draw([1.0, 1.0])
    sample = sample.select(sample.labels != 1)
    facts = fit_summary(["x", "y"], fit_combination(sample, settings()), sample, settings())
    assert facts["absent_from_val"] == ["c1"]
    assert "no validation image of c1: nothing was learned about it" in facts["fitted_on"]
