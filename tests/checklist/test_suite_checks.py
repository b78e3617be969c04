"""Checks of a suite, on records that are wrong in one place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.registry import ATTACKS
from medrobust.checklist.base import Challenge, ImageSample, ModelEvidence, RadiusCurve, SuiteEvidence, run_check
from medrobust.checklist.challenge import run_challenge
from medrobust.checklist.thresholds import CHECKS
from medrobust.data.store import Subset
from tests.checklist.conftest import EPS, REPORT, suite_of

BY_NAME = {check.name: check for check in CHECKS}
ONE_STEP = [{"name": "fgsm"}]
NO_SUITE = np.zeros((0, 450), dtype=bool)


@pytest.fixture(scope="module")
def evidence(sound: nn.Module, images: Subset) -> SuiteEvidence:
    """A sound evaluation with one step."""
    suite = suite_of(ONE_STEP)
    attempts = attack_suite(sound, images, suite, seed=0)
    records = worst_case(attempts, suite["eps"])
    return SuiteEvidence(suite, attempts, records, images, EPS, True, None, REPORT, None, NO_SUITE)


def with_value(table: pd.DataFrame, where: pd.Series, column: str, value: Any) -> pd.DataFrame:
    """A copy with one value changed in the first row under the mask `where`."""
    table = table.copy()
    table.loc[where[where].index[0], column] = value
    return table


def _outside(e: SuiteEvidence) -> SuiteEvidence:
    tried = e.attempts["attack"] == "fgsm"
    return replace(e, attempts=with_value(e.attempts, tried, "distance", 2 * EPS))


def _robust_but_misclassified(e: SuiteEvidence) -> SuiteEvidence:
    return replace(e, records=with_value(e.records, ~e.records["fooled"], "clean_pred", -1))


def _mean(e: SuiteEvidence) -> SuiteEvidence:
    """A fooled image counts as robust, as it may in a mean over attacks."""
    return replace(e, records=with_value(e.records, e.records["fooled"], "fooled", False))


def _targets(e: SuiteEvidence) -> SuiteEvidence:
    """An attack that targets one of the two wrong classes."""
    attack = {"name": "one_target", "hyperparameters": {}}
    return replace(e, suite={**e.suite, "attacks": [attack]})


def _stronger(e: SuiteEvidence) -> SuiteEvidence:
    """Another suite fools one image more."""
    fooled = e.records_at(e.eps)["fooled"].to_numpy().copy()
    fooled[np.flatnonzero(~fooled)[0]] = True
    return replace(e, fooled_by_others=fooled[None])


def _few(e: SuiteEvidence) -> SuiteEvidence:
    return replace(e, subset=replace(e.subset, patients=np.full(len(e.subset), "p")))


#: check -> change of a sound evaluation that it must detect.
CAUGHT: dict[str, Callable[[SuiteEvidence], SuiteEvidence]] = {
    "validity": _outside,
    "robust <= clean": _robust_but_misclassified,
    "worst case": _mean,
    "targets": _targets,
    "sample size": _few,
    "other suites": _stronger,
}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_wrong_record_is_caught(name: str, evidence: SuiteEvidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "one_target", "tests.checklist.broken:OneTarget")
    assert run_check(BY_NAME[name], evidence).outcome in {"pass", "skip"}
    assert run_check(BY_NAME[name], CAUGHT[name](evidence)).outcome in {"fail", "warn"}


@pytest.mark.parametrize(
    ("fooled", "width", "outcome"), [(1, "0.058", "pass"), (0, "0.058", "pass"), (2, "0.181", "warn")]
)
def test_the_interval_of_a_small_sample_decides(
    fooled: int, width: str, outcome: str, evidence: SuiteEvidence
) -> None:
    """All images of 30 patients are fooled, or none (only the exact bound gives a width), or every second one."""
    ids = evidence.subset.ids[::15]
    records = evidence.records[evidence.records["id"].isin(ids)].copy()
    records["fooled"] = np.arange(len(records)) % 2 == 0 if fooled == 2 else bool(fooled)
    records["adv_pred"] = (records["label"] + records["fooled"]) % 3
    few = replace(evidence, subset=evidence.subset.take(np.arange(0, 450, 15)), records=records)
    found = run_check(BY_NAME["sample size"], few)
    assert found.outcome == outcome
    assert f"30 images, interval ±{width}, fewest patients of a class: 10" in found.text


@pytest.mark.parametrize(
    "name",
    [
        "convergence", "restarts", "step size", "one step", "adaptive steps", "smoothed gradient", "black box",
        "label only", "transfer", "together",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("count", "outcome"), [(0, "pass"), (1, "pass"), (20, "fail")])
def test_a_challenger_counts_by_the_lower_bound_of_its_success(
    name: str, count: int, outcome: str, evidence: SuiteEvidence
) -> None:
    """One image of forty is too little evidence for any check."""
    robust = np.flatnonzero(~evidence.records_at(EPS)["fooled"].to_numpy())[:40]
    fooled = np.arange(40) < count
    challenge = Challenge(EPS, robust, {name: "description"}, {name: fooled}, np.full(40, -np.inf))
    assert run_check(BY_NAME[name], replace(evidence, challenge=challenge)).outcome == outcome


def test_images_that_the_suite_fooled_do_not_count(evidence: SuiteEvidence) -> None:
    fooled = np.flatnonzero(evidence.records_at(EPS)["fooled"].to_numpy())[:10]
    challenge = Challenge(EPS, fooled, {}, {"one step": np.ones(10, dtype=bool)}, np.full(10, 1.0))
    finding = run_check(BY_NAME["one step"], replace(evidence, challenge=challenge))
    assert (finding.outcome, finding.text) == ("skip", "no image is robust")


def test_a_skipped_check_gives_a_reason(evidence: SuiteEvidence) -> None:
    assert run_check(BY_NAME["restarts"], evidence).text == "no image is robust"
    robust = np.flatnonzero(~evidence.records_at(EPS)["fooled"].to_numpy())[:2]
    alone = Challenge(EPS, robust, {}, {}, np.zeros(2), {"transfer": "no other model"})
    assert run_check(BY_NAME["transfer"], replace(evidence, challenge=alone)).text == "no other model"


@pytest.mark.parametrize(
    ("attack", "counts"),
    [
        ({"name": "fgsm"}, True), ({"name": "pgd"}, True), ({"name": "mifgsm"}, True),
        ({"name": "bim", "target": 1}, False), ({"name": "square"}, False), ({"name": "noise"}, False),
    ],
)  # fmt: skip
def test_which_attacks_have_to_spend_their_budget(
    attack: dict[str, Any], counts: bool, evidence: SuiteEvidence
) -> None:
    """Of any attack that follows gradients without a target; its attempts may not be called skipped."""
    attempts = evidence.attempts.assign(attack=attack["name"])
    measured = run_check(BY_NAME["budget"], replace(evidence, suite=suite_of([attack]), attempts=attempts))
    assert (measured.outcome != "skip") == counts


@pytest.mark.parametrize("give_up", [False, True])
def test_attempts_that_end_early_are_not_measured_against_the_budget(
    give_up: bool, sound: nn.Module, images: Subset
) -> None:
    """At a small radius every attempt soon cannot succeed, and ends half way to the border."""
    attack = {"name": "pgd", "steps": 40, "loss": "margin", "random_start": False}
    suite = {**suite_of([attack]), "eps": [EPS / 4], "give_up": give_up}
    few = replace(images, **{name: getattr(images, name)[::10] for name in ("rows", "labels", "ids", "patients")})
    attempts = attack_suite(sound, few, suite, seed=0)
    e = SuiteEvidence(
        suite, attempts, worst_case(attempts, suite["eps"]), few, EPS / 4, True, None, REPORT, None, NO_SUITE
    )
    for name in ("budget", "saturation"):
        assert run_check(BY_NAME[name], e).outcome == ("skip" if give_up else "pass")


def test_checks_of_the_radius_curve(sound: nn.Module, images: Subset) -> None:
    sample = ImageSample(np.arange(2), images.batch(range(2)), images.targets(range(2)), torch.arange(2))
    preds = images.labels

    def outcome(name: str, curve: RadiusCurve | None) -> str:
        return run_check(BY_NAME[name], ModelEvidence(sound, sample, 3, preds, preds, curve)).outcome

    assert (
        outcome("monotone", RadiusCurve(0, 0, 40, 0, 0))
        == outcome("monotone", RadiusCurve(1, 0, 40, 0, 0))
        == "pass"
    )
    assert outcome("monotone", RadiusCurve(5, 0, 40, 0, 0)) == "fail"
    assert outcome("bit depth", RadiusCurve(0, 0, 40, 20, 19)) == "pass"
    assert outcome("bit depth", RadiusCurve(0, 0, 40, 20, 10)) == "warn"
    assert outcome("bit depth", RadiusCurve(0, 0, 40, 0, 0)) == outcome("monotone", None) == "skip"


def test_a_training_attack_that_cannot_reach_its_radius_is_named(sound: nn.Module, images: Subset) -> None:
    sample = ImageSample(np.arange(2), images.batch(range(2)), images.targets(range(2)), torch.arange(2))
    weak = {"eps": 0.2, "alpha": 1e-4, "steps": 5, "allow_weak": True}

    def found(*trainings: dict[str, Any]) -> tuple[str, str]:
        evidence = ModelEvidence(sound, sample, 3, images.labels, images.labels, None, trainings)
        result = run_check(BY_NAME["training attack"], evidence)
        return result.outcome, result.text

    moved = "the training attack moves at most 0.0025 eps"
    assert (
        found(weak)
        == found({"eps": 0.1, "alpha": "auto", "steps": 1, "allow_weak": False}, weak)
        == ("warn", moved)
    )
    for sound_block in ({"alpha": "auto"}, {"alpha": 0.04}):
        assert found({**weak, **sound_block})[0] == "pass"
    assert found()[0] == "pass"


def test_the_same_seed_gives_the_same_challenge_and_keeps_the_global_random_state(
    sound: nn.Module, images: Subset
) -> None:
    rows = np.arange(0, 450, 30)
    sample = ImageSample(rows, images.batch(rows), images.targets(rows), torch.arange(len(rows)))
    state = torch.get_rng_state()
    one, two = (run_challenge(sound, sample, EPS, steps=4, queries=5, siblings={}) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, fooled in one.fooled.items():
        assert (fooled == two.fooled[name]).all(), name
    assert (one.noise_margin == two.noise_margin).all()
    assert "transfer" in one.skipped
