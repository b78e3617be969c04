"""Replays: valid params in both sizes and columns, what the table holds, and a run that fails."""

import csv
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, check_params
from medrobust.core.params.yaml_file import parse_params
from medrobust.core.records import write_metrics
from tests.params import preset
from tools import repeat, replay
from tools.preset import names
from tools.replay import COLUMNS, collect, params_texts, read_study, studies, table


def loaded(name: str, size: str) -> dict[str, Params]:
    return {key: check_params(parse_params(text, key), key) for key, text in params_texts(name, size).items()}


def test_every_study_has_a_preset_of_each_size() -> None:
    assert studies() == ["lerman2024", "li2020", "ma2020", "mankar", "sahu2024"]
    assert {f"{name}{size}" for name in studies() for size in ("", "-cpu")} <= set(names())


@pytest.mark.parametrize("size", ["gpu", "cpu"])
@pytest.mark.parametrize("name", studies())
def test_both_columns_are_valid_and_the_numbers_have_a_cell(name: str, size: str) -> None:
    columns, study = loaded(name, size), read_study(name)
    assert columns["published"] == check_params(preset(f"{name}{'-cpu' if size == 'cpu' else ''}"), name)
    published, corrected = columns["published"], columns["corrected"]
    assert published != corrected
    assert {*published.models} == {*corrected.models}, "the same models"
    assert not corrected.adv.allow_weak
    assert not any(block.adv.get("allow_weak") for block in corrected.models.values())
    attacks = [attack for suite in corrected.attacks.suites.values() for attack in suite.attacks]
    assert not any({"alpha", "allow_weak"} & set(attack) for attack in attacks if attack["name"] == "pgd")
    suites = published.attacks.suites
    assert set(study.expected.suites) <= set(suites)
    assert set(study.expected.trainings) <= set(published.models)
    for number in study.published if size == "gpu" else []:
        suite, _, eps = number.measure.removeprefix("each member alone ").partition(" ")
        assert suite == "clean" or float(eps) in suites[suite].eps, number
        assert number.model.rpartition("-")[0] in [*published.models, "ensemble"], number


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(UserError, match=r"STUDY: there is no study 'x'.*one of: lerman2024, li2020"):
        read_study("x")


def write(folder: Path, params: Params) -> None:
    """Records of one model and of the ensemble."""
    name, rate = next(iter(params.models)), {"accuracy": 0.9, "accuracy_ci": [0.8, 1.0]}
    attacked = {"robust_accuracy": {"0.2": 0.95}, "robust_accuracy_ci": {"0.2": [0.9, 1.0]}}
    lines = {"reach": "fail: 0.0025", "one step": "fail: 0.5"}
    checks = {
        "model": {"collapse": "pass: x", "training attack": "warn: moves at most 0.0025 eps"},
        "suites": {"pgd_weak": {"verdict": "invalid", "checks": lines}},
    }
    write_metrics(folder / "audit.json", {"verdict": "leaking", "reasons": ["a", "b"]}, {})
    write_metrics(folder / "train" / f"{name}-adv.json", rate, {})
    write_metrics(folder / "attack" / f"{name}-adv-pgd_weak.json", attacked, {})
    write_metrics(folder / "checks" / f"{name}-adv.json", {**checks, "verdict": "invalid"}, {})
    row = {"eps": 0.2, **rate}
    write_metrics(folder / "transfer.json", {"per_member": [row]}, {})


def test_the_table_has_numbers_and_verdicts_and_leaves_open_what_did_not_run(tmp_path: Path) -> None:
    params = loaded("lerman2024", "cpu")["published"]
    write(tmp_path, params)
    found = collect(tmp_path, params)
    assert found["data", "audit"] == "leaking: a; b"
    assert found["resnet34-adv", "pgd_weak 0.2"] == "0.950 [0.900, 1.000]"
    blamed = "reach (fail), one step (fail), training attack (warn)"
    assert found["resnet34-adv", "verdict on pgd_weak"] == f"invalid: {blamed}"
    assert found["ensemble-adv", "each member alone pgd_weak 0.2"] == "0.900 [0.800, 1.000]"
    rows = {(row["model"], row["measure"]): row for row in table(read_study("lerman2024"), {"published": found})}
    assert rows["resnet34-adv", "pgd_weak 0.2"] == {
        "model": "resnet34-adv", "measure": "pgd_weak 0.2", "published": "0.9765",
        "replay as published": "0.950 [0.900, 1.000]", "replay as it should be": "",
    }  # fmt: skip
    assert rows["dinov2-adv", "pgd 0.005"]["replay as published"] == ""
    assert rows["ensemble-adv", "each member alone pgd_weak 0.2"]["published"] == "0.688"


@pytest.mark.parametrize("fails", [False, True])
def test_both_columns_run_in_clones_of_their_own(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/tmp\n.dvc/config.local\n")
    (root / "docs" / "tables").mkdir(parents=True)
    (root / "docs" / "tables" / "replay-lerman2024-cpu.csv").write_text("of an earlier run\n")
    (root / "params.yaml").write_text(params_texts("lerman2024", "cpu")["published"])
    write_metrics(root / "metrics" / "train" / "efficientnet_b0-clean.json", {"accuracy": 0.1}, {})
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    ran: list[Path] = []

    def run(clone: Path, jobs: int) -> bool:
        ran.append(clone)
        assert (clone / "params.yaml").read_text() == params_texts("lerman2024", "cpu")[clone.name.split("-")[-1]]
        write(clone / "metrics", loaded("lerman2024", "cpu")["published"])
        return not fails

    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["replay", "lerman2024", "--size", "cpu"])
    monkeypatch.setattr(replay, "reproduce", run)
    if fails:
        with pytest.raises(SystemExit, match=r"replay as published failed\. Run the command again"):
            replay.main()
    else:
        replay.main()
    assert ran == [root / repeat.CLONES / f"lerman2024-cpu-{column}" for column in COLUMNS][: 1 if fails else 2]
    with (root / "docs" / "tables" / "replay-lerman2024-cpu.csv").open() as file:
        rows: dict[Any, Any] = {(row["model"], row["measure"]): row for row in csv.DictReader(file)}
    cell = rows["resnet34-adv", "pgd_weak 0.2"]
    assert cell["replay as published"] == "0.950 [0.900, 1.000]"
    assert cell["replay as it should be"] == ("" if fails else "0.950 [0.900, 1.000]")
    assert ("efficientnet_b0-clean", "clean accuracy") in rows, "published"
    assert rows["efficientnet_b0-clean", "clean accuracy"]["replay as published"] == "", "not of the committed run"
