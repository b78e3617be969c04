"""What a stage writes of the checks, and how a run ends on an invalid number."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from medrobust.checklist.run import conclude, read_evaluations
from medrobust.core.errors import UserError
from medrobust.core.records import read_metrics
from medrobust.data.store import Subset
from tests.checklist.conftest import EPS, Check, suite_of


def record(verdict: str) -> dict[str, Any]:
    line = {"invalid": "fail: 3 of 4", "suspect": "warn: 1 of 4"}.get(verdict, "pass: 0 of 4")
    suites = {"s": {"verdict": verdict, "eps": EPS, "checks": {"restarts": line}}}
    return {
        "verdict": verdict,
        "model": {"collapse": "pass: 30%"},
        "suites": suites,
        "means": {},
        "seconds": 1.23456,
    }


def test_an_invalid_number_is_written_and_then_ends_the_run_if_that_is_wanted(tmp_path: Path) -> None:
    found = {tmp_path / "a-adv.json": record("invalid"), tmp_path / "b-adv.json": record("suspect")}
    with pytest.raises(UserError, match=r"a-adv: restarts of s \(3 of 4\)\. .*attacks.on_invalid: warn") as error:
        conclude(found, "fail")
    assert "b-adv" not in str(error.value)
    assert read_metrics(tmp_path / "a-adv.json")["verdict"] == "invalid"
    assert read_metrics(tmp_path / "b-adv.json")["seconds"] == 1.23456
    conclude(found, "warn")


def test_a_missing_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s/suite\.json: no such file"):
        read_evaluations(["s"], tmp_path, tmp_path)


def test_a_suite_is_checked_at_its_radius_nearest_to_the_runs(sound: nn.Module, check: Check) -> None:
    one = check(sound, {"s": suite_of([{"name": "fgsm"}])}, count=4)
    assert one["suites"]["s"]["eps"] == EPS
    assert one["images"] == 4
    assert set(one) == {"verdict", "images", "model", "suites", "means", "remedies"}


def test_the_checks_of_a_seed_say_the_same_again(sound: nn.Module, check: Check, images: Subset) -> None:
    suites = {"s": suite_of([{"name": "fgsm"}])}
    one, two = (check(sound, suites, count=8) for _ in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
