"""The comparison judges every patient by a vote that has not seen him, and says what is not possible."""

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.core import metrics
from medrobust.core.params.report import ReportParams
from medrobust.core.params.training import AdvParams
from medrobust.data.store import Subset
from medrobust.ensembling.compare import compare
from medrobust.ensembling.fit import answers, ask, facts_of, fit_rule, named
from medrobust.ensembling.registry import METHODS
from tests.ensembling.samples import draw, settings
from tests.params import default_block

REPORT = ReportParams(title="", bootstrap=40, confidence=0.9, sheet=6)


def pictures(count: int = 24) -> Subset:
    """Images of 8×8 pixels, a patient of two slices each."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    ids = np.array([f"i{k}" for k in range(count)])
    patients = np.array([f"p{k // 2}" for k in range(count)])
    return Subset(pixels, np.arange(count), np.arange(count) // 2 % 3, ids, patients, ["c0", "c1", "c2"])


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


def test_every_method_is_compared_on_validation_and_test() -> None:
    test, sample = pictures(), draw([1.5, 1.0])
    votes = draw([1.0, 1.0], seed=3, patients=12, slices=2).clean
    found = compare(sample, test, votes, settings(), REPORT)
    assert set(found.records) == set(found.rules) == set(METHODS)
    for name, record in found.records.items():
        assert found.rules[name] == fit_rule(sample, settings(method=name))
        logprobs = answers(fit_rule(sample, settings(method=name)), votes)
        assert record["test_accuracy"] == pytest.approx((logprobs.argmax(1) == test.labels).mean())
        assert record["test_log_loss"] == pytest.approx(metrics.nll(test.labels, logprobs))
        low, high = record["test_accuracy_ci"]
        assert low <= record["test_accuracy"] <= high
        assert record["val_log_loss"] < record["val_robust_log_loss"]


def test_equal_out_of_fold_is_equal_and_a_fit_is_worse_than_in_sample() -> None:
    sample, params = draw([1.0, 1.0, 1.0], patients=9), settings(c_grid=[10.0])
    found = compare(sample, pictures(), draw([1.0] * 3, patients=12, slices=2).clean, params, REPORT).records
    mean = np.log(np.exp(sample.clean).mean(0))
    assert found["equal"]["val_log_loss"] == pytest.approx(metrics.nll(sample.labels, mean), abs=1e-6)
    inside = answers(fit_rule(sample, settings(method="stacking", c_grid=[10.0])), sample.clean)
    assert found["stacking"]["val_log_loss"] > metrics.nll(sample.labels, inside)


def test_who_is_judged_out_of_fold_did_not_choose_the_penalty_either() -> None:
    """Penalties are chosen among the others; a choice by all patients shows a smaller loss than there is."""
    sample, params = draw([1.0, 1.0], patients=12), settings(c_grid=[1e-4, 1e-2, 1.0, 100.0], folds=4)
    votes = draw([1.0, 1.0], patients=12, slices=2).clean
    found = compare(sample, pictures(), votes, params, REPORT).records
    for name in ("stacking", "blending"):
        said = np.empty_like(sample.clean[0])
        for rest, fold in sample.folds(4):
            own = fit_rule(sample.take(rest), settings(**{**params.model_dump(), "method": name}))
            said[fold] = answers(own, sample.clean[:, fold])
        assert found[name]["val_log_loss"] == pytest.approx(metrics.nll(sample.labels, said))


def test_two_patients_of_a_class_are_enough_for_figures_out_of_fold() -> None:
    """Outside the fold of one of them the other is left, and must fit: he cannot choose the penalty too."""
    sample = draw([1.0, 1.0], patients=20)
    sample = sample.take((sample.labels != 1) | np.isin(sample.patients, ["p1", "p4"]))
    found = compare(sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT).records
    for name in METHODS:
        assert found[name]["val_log_loss"] > 0, found[name]


def test_what_validation_does_not_allow_is_named_and_the_others_stand() -> None:
    sample = draw([1.0, 1.0])
    sample = sample.take(sample.labels != 2)
    found = compare(sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT)
    assert "too few validation patients have c2" in found.records["stacking"]["not_fitted"]
    assert "too few validation patients have c2" in found.records["blending"]["not_fitted"]
    assert set(found.rules) == {"equal", "convex"}
    assert "test_accuracy" in found.records["convex"]


def test_one_patient_allows_a_vote_but_no_figures_out_of_fold() -> None:
    """What needs no folds is fitted and measured on test; only the validation columns have nothing to say."""
    sample = draw([1.0, 1.0], patients=1, slices=6)
    found = compare(sample, pictures(), draw([1.0, 1.0], patients=12, slices=2).clean, settings(), REPORT)
    assert set(found.rules) == {"equal", "convex"}
    for name in found.rules:
        assert "6 validation images of 1 patients cannot be dealt into folds" in found.records[name]["val_missing"]
        assert "val_log_loss" not in found.records[name]
        assert "test_accuracy_ci" in found.records[name]
    assert "cannot be dealt into folds" in found.records["stacking"]["not_fitted"]


def test_members_are_asked_about_one_attacked_image() -> None:
    """The attack is made on the vote: every member sees the same image, and it differs from the clean one."""
    adv = default_block(AdvParams, "adv", eps=0.1, steps=2, epochs=1, lr_scale=1.0)
    members = [member(0), member(1)]
    sample = ask(members, pictures(), adv, seed=0)
    alone = ask(members[:1], pictures(), adv, seed=0)
    assert sample.clean.shape == sample.robust.shape == (2, 24, 3)
    assert np.allclose(sample.clean[0], alone.clean[0])
    assert not np.allclose(sample.robust[0], alone.robust[0])
    rows = np.arange(24)
    vote = [np.log(np.exp(part).mean(0))[rows, sample.labels].mean() for part in (sample.clean, sample.robust)]
    assert vote[1] < vote[0]


def test_a_card_says_who_votes_and_who_was_asked() -> None:
    sample = draw([3.0, 0.0])
    params = settings(min_weight=0.3)
    rule = fit_rule(sample, params)
    facts = facts_of(["x-adv", "y-clean"], rule, sample, params)
    assert named(["x-adv", "y-clean"], rule) == {"weights": {"x-adv": 1.0, "y-clean": 0.0}}
    assert facts["val_n"] == 80
    assert facts["val_patients"] == 20
    said = "convex vote of x-adv, from 80 validation images of 20 patients; no weight for y-clean: not run"
    assert facts["fitted_on"] == f"{said}; a vote of one model is that model"


def test_one_member_is_said_to_be_one() -> None:
    sample = draw([1.0])
    params = settings(temperature=True)
    rule = fit_rule(sample, params)
    assert "a vote of one model is that model" in facts_of(["x-adv"], rule, sample, params)["fitted_on"]
    assert set(named(["x-adv"], rule)) == {"weights", "temperatures"}


def test_a_class_absent_from_validation_is_said() -> None:
    sample = draw([1.0, 1.0])
    sample = sample.take(sample.labels != 1)
    facts = facts_of(["x", "y"], fit_rule(sample, settings()), sample, settings())
    assert facts["absent_from_val"] == ["c1"]
    assert "no validation image of c1: nothing was learned of it" in facts["fitted_on"]
