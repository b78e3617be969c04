"""Every built-in fault is caught by the check that is meant for it, and a sound model passes all checks."""

import re
from typing import Any

import pytest
from torch import nn

from medrobust.attacks.registry import ATTACKS
from medrobust.checklist.suite import NO_FAILED_ATTEMPT
from medrobust.checklist.thresholds import CHECKS
from medrobust.data.store import Subset
from tests.checklist import broken
from tests.checklist.conftest import EPS, EPS_L2, Check, l2_suite_of, suite_of

#: fault -> the check that is meant for it, and its outcome.
FAULTS = {
    "Softmax": ("probabilities", "fail"),
    "Scaled": ("saturated loss", "warn"),
    "Quantised": ("zero gradient", "fail"),
    "Constant": ("collapse", "fail"),
    "Randomised": ("deterministic", "fail"),
    "Obfuscated": ("finite difference", "fail"),
    "TrainMode": ("modes intact", "fail"),
    "BlackHole": ("bad gradient", "fail"),
    "TwoInputs": ("one input", "fail"),
    "Wide": ("class count", "fail"),
    "Masked": ("large radius", "fail"),
}
QUICK = [{"name": "pgd", "steps": 5, "loss": "margin"}]
CE = [{"name": "pgd", "steps": 10}]
WEAK = {"name": "pgd", "steps": 2, "alpha": 1e-5, "random_start": False, "allow_weak": True}
WEAK_L2 = {**WEAK, "name": "pgd_l2"}
#: fault of a suite -> its attacks, the check that is meant for it, and its outcome.
WEAKNESSES: dict[str, tuple[list[dict[str, Any]], str, str | tuple[str, ...]]] = {
    "steps that cannot reach": ([WEAK], "reach", "fail"),
    "steps that cannot cross the ball": ([{"name": "pgd", "steps": 4, "alpha": 1.5 * EPS / 4}], "reach", "warn"),
    "no budget spent": ([WEAK], "budget", "fail"),
    "steps too small": ([{**WEAK, "alpha": 0.005, "steps": 4}], "saturation", "warn"),
    "weaker than one step": ([WEAK], "one step", "fail"),
    "weaker than the textbook": ([WEAK], "plain PGD", ("warn", "fail")),
    "noise is as good": ([WEAK], "noise control", "fail"),
    "the loss of the training": (CE, "unseen attack", "warn"),
}
#: Checks that other tests show to catch a fault.
OTHERS = {
    "logit scale", "black box", "transfer", "convergence", "restarts", "step size", "monotone", "bit depth",
    "gain", "direction", "random step", "adaptive steps", "smoothed gradient", "label only", "together",
    "training attack",
}  # fmt: skip


def line_of(record: dict[str, Any], check: str) -> str:
    """Outcome and text of a check of the model or of its only suite."""
    lines: dict[str, str] = {**record["model"], **record["suites"]["s"]["checks"]}
    return lines[check]


def test_a_sound_model_passes_every_check(sound: nn.Module, check: Check) -> None:
    record = check(sound, siblings={"itself": sound})
    lines = record["model"] | record["suites"]["s"]["checks"]
    assert list(lines) == [entry.name for entry in CHECKS]
    assert {name: line for name, line in lines.items() if not line.startswith("pass")} == {
        "one input": "skip: no ensemble",
        "other suites": "skip: no other suite of this norm",
    }
    assert record["verdict"] == record["suites"]["s"]["verdict"] == "no problem found"
    assert record["means"] == record["remedies"] == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_model_is_caught(fault: str, sound: nn.Module, check: Check) -> None:
    name, outcome = FAULTS[fault]
    record = check(getattr(broken, fault)(sound).eval(), {"s": suite_of(QUICK)}, count=8)
    assert line_of(record, name).startswith(outcome)
    assert record["suites"]["s"]["verdict"] == record["verdict"] != "no problem found"
    assert outcome == "warn" or record["verdict"] == "invalid"
    assert set(record["means"]) == set(record["remedies"]) >= {name}


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_weak_suite_is_caught(weakness: str, sound: nn.Module, check: Check) -> None:
    attacks, name, outcome = WEAKNESSES[weakness]
    record = check(sound, {"s": suite_of(attacks)}, count=32)
    assert line_of(record, name).startswith(outcome)
    assert record["verdict"] != "no problem found"


def test_the_members_of_a_sound_ensemble_get_one_input(sound: nn.Module, check: Check) -> None:
    model = broken.OneInput(sound).eval()
    assert line_of(check(model, {"s": suite_of(QUICK)}, count=8), "one input").startswith("pass")


def test_large_logits_are_caught_with_cross_entropy_and_harmless_with_the_margin_loss(
    sound: nn.Module, check: Check
) -> None:
    model = broken.Scaled(sound).eval()
    assert line_of(check(model, {"s": suite_of(CE)}), "logit scale").startswith("fail")
    assert line_of(check(model, {"s": suite_of(QUICK)}), "logit scale").startswith("pass")


def test_noise_in_place_of_an_attack_is_caught(
    noisy: nn.Module, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was trained on noise, and its evaluation uses noise of the same distribution."""
    monkeypatch.setitem(ATTACKS, "noise", "tests.checklist.broken:Noise")
    own = {"name": "noise", "hyperparameters": {}}
    record = check(noisy, {"s": {**suite_of(), "attacks": [own]}})
    assert line_of(record, "noise control").startswith("fail")
    assert line_of(record, "plain PGD").startswith(("warn", "fail"))
    assert line_of(check(noisy, {"s": suite_of(QUICK)}), "noise control").startswith(("pass", "skip"))


def test_masked_gradients_are_caught_from_outside(sound: nn.Module, check: Check) -> None:
    """Images made on a model with gradients, and score queries, do what the suite's own gradients cannot."""
    record = check(broken.Quantised(sound).eval(), {"s": suite_of(QUICK)}, siblings={"sound": sound}, queries=800)
    assert line_of(record, "transfer").startswith("fail")
    assert line_of(record, "black box").startswith("fail")


def test_the_verdict_of_a_suite_does_not_depend_on_others(sound: nn.Module, check: Check, images: Subset) -> None:
    record = check(sound, {"good": suite_of(), "weak": suite_of([WEAK])}, count=32)
    assert record["suites"]["good"]["verdict"] == "no problem found"
    assert record["suites"]["weak"]["verdict"] == record["verdict"] == "invalid"


def test_an_l2_suite_has_challengers_and_a_sound_one_passes_them(sound: nn.Module, check: Check) -> None:
    strong = [{"name": "pgd_l2", "loss": loss, "restarts": 2} for loss in ("margin", "ce")]
    strong += [{"name": "apgd", "loss": "margin", "restarts": 2}]
    record = check(sound, {"s": l2_suite_of(*strong)}, siblings={"itself": sound})
    lines = record["suites"]["s"]["checks"]
    assert record["suites"]["s"]["eps"] == EPS_L2
    not_passed = {name: line for name, line in lines.items() if not line.startswith("pass")}
    skipped = f"skip: {NO_FAILED_ATTEMPT}"
    assert not_passed == {
        "budget": skipped, "saturation": skipped, "smoothed gradient": "skip: for Linf only",
        "other suites": "skip: no other suite of this norm",
    }  # fmt: skip
    assert "of 40 images that are robust at eps 0.65" in lines["black box"]


def test_a_weak_l2_suite_is_caught(sound: nn.Module, check: Check) -> None:
    record = check(sound, {"s": l2_suite_of(WEAK_L2)}, count=32)
    for name in ("reach", "noise control", "one step", "plain PGD"):
        assert line_of(record, name).startswith("fail"), name


@pytest.mark.slow
def test_masked_gradients_are_caught_without_gradients_in_l2(sound: nn.Module, check: Check) -> None:
    model, suite = broken.Obfuscated(sound).eval(), l2_suite_of({"name": "pgd_l2", "loss": "margin"})
    record = check(model, {"s": {**suite, "eps": [1.2]}}, siblings={"sound": sound}, queries=300)
    assert line_of(record, "transfer").startswith("fail")
    assert line_of(record, "black box").startswith("fail")


def test_a_result_names_the_challenger_its_success_and_what_that_proves(sound: nn.Module, check: Check) -> None:
    lines = check(sound, {"s": suite_of([WEAK])}, count=32, siblings={"other": sound})["suites"]["s"]["checks"]
    assert re.fullmatch(
        r"fail: a single gradient step: fools \d+ of 32 images that are robust at eps 0.0588; "
        r"robust accuracy is at least 0\.\d{3} too high", lines["one step"],
    )  # fmt: skip
    assert lines["restarts"].startswith("pass: PGD-10 from 2 more starts: fools ")
    assert lines["transfer"].startswith("pass: PGD-10 on other: fools ")
    assert "nearer to an error than the suite's best on" in lines["noise control"]
