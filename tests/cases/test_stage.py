"""The stage as a script: what it writes, when it writes nothing, and a guard of another model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.core.code import stage_code
from medrobust.core.errors import UserError
from medrobust.core.params.schema import check_params
from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_json, write_json
from medrobust.detection.guard import Guard, save_guard
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.combination import Combination
from medrobust.models.ensemble import save_ensemble
from tests.params import preset, save
from tests.stages import CLASSES, SIDE, run_stage, write_data
from tests.test_switched_off import CODE, ROOT, node


@pytest.fixture
def workplace(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, two models, their ensemble, a suite and params, in which the stage runs."""
    params = preset("smoke")
    params["attacks"]["suites"] = {"pgd": {"norm": "Linf", "eps": [0.02, 0.05], "attacks": [{"name": "pgd"}]}}
    params["detect"] |= {"suites": {"pgd": 0.05}, "seen": "pgd"}
    params["transfer"]["eps"] = params["explain"]["eps"] = 0.05
    save(tmp_path, params)
    write_data(tmp_path / "data")
    entry: dict[str, Any] = {"name": "pgd", "hyperparameters": {"steps": 2}}
    suite = {"name": "pgd", "norm": "Linf", "eps": [0.02, 0.05], "give_up": False, "attacks": [entry], "code": {}}
    resolved = tmp_path / "data" / "resolved"
    write_json(resolved / "suites" / "pgd" / "suite.json", suite)
    write_json(resolved / "suites.json", {"pgd": "hash"})
    write_json(resolved / "settings" / "backbones.json", ["resnet10t"])
    write_json(resolved / "detection.json", {"code": {}})
    block = ModelParams(timm="resnet10t", weights="none", image_size=SIDE)
    folders = {regime: tmp_path / "data" / "checkpoints" / "resnet10t" / regime for regime in ("clean", "adv")}
    for seed, folder in enumerate(folders.values()):
        torch.manual_seed(seed)
        checkpoint.save(folder, build_classifier(block, CLASSES), block, {"regime": folder.name})
    combination = Combination(weights=[0.25, 0.75])
    save_ensemble(tmp_path / "data" / "ensemble", folders, combination, {"regime": "adv"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_every_model_and_what_they_were_made_on(
    root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(root, monkeypatch, "cases")
    found = read_json(workplace / "data" / "cases.json")
    assert [model["name"] for model in found["models"]] == ["resnet10t-clean", "resnet10t-adv", "ensemble"]
    assert len(found["cases"]) == 4
    assert set(found["cases"][0]["models"]) == set(found["made_on"]["models"])
    assert set(found["made_on"]) == {"data", "split", "models", "suites"}
    assert "4 images, 0." in capsys.readouterr().out
    text = json.dumps(found)
    assert not [name for name in ("i47", "p11") if f'"{name}"' in text]


def test_a_suite_of_an_earlier_run_does_not_matter(
    root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attack's code may have changed since; no stage resolves it again."""
    code = workplace / "data" / "code" / "cases"
    code.parent.mkdir()
    code.write_text(stage_code(root / "stages" / "cases.py"))
    removed = {"name": "old", "code": {"attacks/pgd": "of other code"}}
    write_json(workplace / "data" / "resolved" / "suites" / "old" / "suite.json", removed)
    run_stage(root, monkeypatch, "cases")
    assert (workplace / "data" / "cases.json").is_file()


@pytest.mark.parametrize("switch", [{"cases": 0}, {"pictures": False}])
def test_it_writes_an_empty_file_without_torch_or_inputs(switch: dict[str, Any], tmp_path: Path) -> None:
    content = preset("smoke")
    content["report"] |= switch
    save(tmp_path, content)
    write_json(tmp_path / "data" / "resolved" / "suites.json", {})
    _, script, *arguments = node("cases")["cmd"].split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", CODE, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "data" / "cases.json") == {}


def test_a_guard_of_another_model_is_refused(root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_guard(workplace / "data" / "guards" / "resnet10t-adv", Guard({}, 1.0, 0.05, "of an earlier training"))
    with pytest.raises(SystemExit, match="was fitted to another model"):
        run_stage(root, monkeypatch, "cases")
    assert not (workplace / "data" / "cases.json").exists()


@pytest.mark.parametrize("value", [-1, 1.5, "all"])
def test_a_number_of_images_that_is_none_is_refused(value: object) -> None:
    content = preset("smoke")
    content["report"]["cases"] = value
    with pytest.raises(UserError, match=r"report\.cases"):
        check_params(content, "params.yaml")
