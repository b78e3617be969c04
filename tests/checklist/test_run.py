"""The records of the checklist, and the failure of a run on an invalid verdict."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from medrobust.attacks.engine.attempts import table_of, worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.checklist import run
from medrobust.checklist.base import Challenge, ImageSample
from medrobust.checklist.challenge import run_challenge
from medrobust.checklist.run import CheckedModel, check_predictions, read_evaluations, write_records
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import read_metrics, write_json, write_table
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


def test_an_invalid_verdict_is_written_and_then_fails_the_run_if_on_invalid_is_fail(tmp_path: Path) -> None:
    found = {tmp_path / "a-adv.json": record("invalid"), tmp_path / "b-adv.json": record("suspect")}
    with pytest.raises(UserError, match=r"a-adv: restarts of s \(3 of 4\)\. .*attacks.on_invalid: warn") as error:
        write_records(found, "fail")
    assert "b-adv" not in str(error.value)
    assert read_metrics(tmp_path / "a-adv.json")["verdict"] == "invalid"
    assert read_metrics(tmp_path / "b-adv.json")["seconds"] == 1.23456
    write_records(found, "warn")


def test_a_missing_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s/suite\.json: no such file"):
        read_evaluations(["s"], tmp_path, tmp_path, {})


@pytest.mark.parametrize("key", ["weights", "data", "split", "suite"])
def test_records_of_another_model_split_or_suite_are_refused(key: str, tmp_path: Path) -> None:
    suite = suite_of([{"name": "fgsm"}])
    write_json(tmp_path / "s" / "suite.json", {**suite, "code": {"attacks/fgsm": "1"}})
    own = {"weights": "w", "data": "d", "split": "t"}
    attempts = table_of([])
    attempts.attrs[MADE_ON] = {**own, "suite": suite_hash(suite)}
    write_table(tmp_path / "s.parquet", attempts)
    assert list(read_evaluations(["s"], tmp_path, tmp_path, own)[1]) == ["s"]
    attempts.attrs[MADE_ON] = {**attempts.attrs[MADE_ON], key: "other"}
    write_table(tmp_path / "s.parquet", attempts)
    with pytest.raises(UserError, match=r"s\.parquet: was made on (weights other|another|other).* --force"):
        read_evaluations(["s"], tmp_path, tmp_path, own)
    write_table(tmp_path / "s.parquet", table_of([]))
    with pytest.raises(UserError, match=r"s\.parquet: does not say what it was made on"):
        read_evaluations(["s"], tmp_path, tmp_path, own)


def test_clean_predictions_that_are_not_the_models_are_refused(
    sound: nn.Module, images: Subset, tmp_path: Path
) -> None:
    suite = suite_of([{"name": "fgsm"}])
    attempts = attack_suite(sound, images, suite, seed=0)
    own = CheckedModel(model=sound, subset=images, suites={"s": suite}, attempts={"s": attempts}, adversarial=True)
    check_predictions(own, tmp_path)
    forged = attempts.assign(clean_pred=1 - attempts["clean_pred"])
    with pytest.raises(UserError, match=r"s\.parquet: (\d+) of \1 clean predictions are not the model's"):
        check_predictions(replace(own, attempts={"s": forged}), tmp_path)
    tie = forged.assign(margin=1e-6)
    check_predictions(replace(own, attempts={"s": tie}), tmp_path)  # another device may decide it otherwise
    with pytest.raises(UserError, match=r"s\.parquet: its images are not the test images"):
        check_predictions(replace(own, attempts={"s": attempts[attempts["id"] != images.ids[3]]}), tmp_path)


def test_a_suite_is_checked_at_its_radius_nearest_to_that_of_the_run(sound: nn.Module, check: Check) -> None:
    one = check(sound, {"s": suite_of([{"name": "fgsm"}])}, count=4)
    assert one["suites"]["s"]["eps"] == EPS
    assert one["images"] == 4
    assert set(one) == {"verdict", "images", "model", "suites", "means", "remedies"}


def test_patches_have_no_challengers_and_change_no_other_suite(sound: nn.Module, check: Check) -> None:
    """Only the records of a patch suite are checked, and its many steps are not those of the challengers."""
    params = SuiteParams(norm="patch", eps=[0.02, 0.05, 0.2], attacks=[{"name": "patch", "steps": 60}])
    plain = {"s": suite_of([{"name": "fgsm"}])}
    alone, both = check(sound, plain, count=4), check(sound, {**plain, "p": resolve_suite("p", params)}, count=4)
    assert both["suites"]["s"] == alone["suites"]["s"]
    found = both["suites"]["p"]
    assert found["eps"] == 0.05
    reason = "for balls only, not for patches"
    assert {name for name, line in found["checks"].items() if reason in line} >= {"black box", "noise control"}
    assert {found["checks"][name].partition(":")[0] for name in ("validity", "worst case")} == {"pass"}


def test_the_same_seed_gives_the_same_record(sound: nn.Module, check: Check, images: Subset) -> None:
    suites = {"s": suite_of([{"name": "fgsm"}])}
    one, two = (check(sound, suites, count=8) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("more", [-5, 5])
def test_challengers_try_the_images_first_that_no_suite_fooled(
    sound: nn.Module, check: Check, images: Subset, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    suites = {"weak": suite_of([{"name": "noise"}]), "strong": suite_of()}
    attempts = {name: attack_suite(sound, images, suite, seed=0) for name, suite in suites.items()}
    tables = [worst_case(table, [EPS]).set_index("id").loc[images.ids] for table in attempts.values()]
    fooled = np.array([table["fooled"].to_numpy(dtype=bool) for table in tables])
    count = fooled.sum(0)
    none = count == 0
    tried: list[np.ndarray] = []

    def spy(model: nn.Module, sample: ImageSample, *rest: Any, **named: Any) -> Challenge:
        tried.append(sample.rows)
        return run_challenge(model, sample, *rest, **named)

    monkeypatch.setattr(run, "run_challenge", spy)
    check(sound, suites, count=int(none.sum()) + more, queries=5, attempts=attempts)
    (rows,) = tried
    assert none[rows].sum() == none.sum() + min(more, 0)
    assert (~none[rows]).sum() == max(more, 0)
    assert (count[rows] < 2).all()
