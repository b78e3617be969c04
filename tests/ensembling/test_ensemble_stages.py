"""The stages of the ensemble, with their commands in dvc.yaml: every method is fitted and can be attacked."""

from pathlib import Path

import pytest
import torch

from medrobust.attacks.engine.attempts import ATTEMPTS
from medrobust.checklist.thresholds import CHECKS
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.training import ModelParams
from medrobust.core.params.yaml_file import read_params
from medrobust.core.records import read_json, read_metrics, read_table, write_json
from medrobust.data.store import open_splits
from medrobust.ensembling.registry import METHODS
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.ensemble import load_ensemble
from tests.params import preset, save
from tests.stages import CLASSES, SIDE, run_stage, write_data

SUITE = {"norm": "Linf", "eps": [0.05, 0.1], "attacks": [{"name": "fgsm"}]}


@pytest.fixture
def workplace(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, two models, params and a checked suite, in which stages run."""
    params = preset("smoke")
    params["attacks"]["suites"] = {"quick": SUITE}
    params["models"]["resnet10t"] |= {"detect": [], "explain": False}
    params["patient"]["suites"] = []
    params["external"]["sets"] = {}
    params["detect"] |= {"ensemble": [], "suites": {}, "seen": None}
    params["explain"]["suite"] = params["transfer"]["suite"] = params["corruptions"]["suite"] = "quick"
    params["ensemble"] |= {"members": ["resnet10t-clean", "resnet10t-adv"], "folds": 2}
    params["report"]["bootstrap"] = 20
    save(tmp_path, params)
    write_data(tmp_path / "data")
    block = ModelParams(timm="resnet10t", weights="none", image_size=SIDE)
    for seed, regime in enumerate(("clean", "adv")):
        torch.manual_seed(seed)
        folder = tmp_path / "data" / "checkpoints" / "resnet10t" / regime
        checkpoint.save(folder, build_classifier(block, CLASSES), block, {})
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "data" / "resolved" / "settings" / "backbones.json", ["resnet10t"])
    run_stage(root, monkeypatch, "suite", suite="quick")
    write_json(tmp_path / "data" / "code" / "detectors.json", {"code": {}})
    run_stage(root, monkeypatch, "detection")
    return tmp_path


def test_every_method_is_saved_and_another_than_the_selected_one_can_be_attacked(
    root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(root, monkeypatch, "ensemble")
    methods = workplace / "data" / "methods"
    assert {folder.name for folder in methods.iterdir()} == set(METHODS)
    selected, convex = (
        read_json(folder / "card.json") for folder in (workplace / "data" / "ensemble", methods / "convex")
    )
    assert selected.pop("temperature") > 0, "of the answers of the command medrobust"
    assert convex == selected | {"members": convex["members"]}
    images = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(
        load_ensemble(methods / "convex")(images), load_ensemble(workplace / "data" / "ensemble")(images)
    )

    run_stage(root, monkeypatch, "attack_method", method="equal", suite="quick")
    record = read_metrics(workplace / "metrics" / "methods" / "equal-quick.json")
    compared = read_metrics(workplace / "metrics" / "ensemble.json")["methods"]["equal"]
    assert record["clean_accuracy"] == compared["test_accuracy"]
    assert record["robust_accuracy"]["0.1"] <= record["robust_accuracy"]["0.05"] <= record["clean_accuracy"]
    assert set(record["robust_accuracy_ci"]) == {"0.05", "0.1"}
    attempts = read_table(workplace / "data" / "attacks" / "methods" / "equal" / "quick.parquet")
    assert set(attempts["attack"]) >= {"natural", "fgsm"}
    assert len(read_table(workplace / "plots" / "methods" / "equal-quick.csv")) == 2

    run_stage(root, monkeypatch, "check_method", method="equal")
    checked = read_metrics(workplace / "metrics" / "checks" / "equal-method.json")
    assert checked["suites"]["quick"]["eps"] == 0.05
    lines = checked["model"] | checked["suites"]["quick"]["checks"]
    assert {check.name for check in CHECKS} == set(lines)
    assert not lines["one input"].startswith("skip")


def test_the_cells_of_a_method_that_was_not_fitted_succeed_and_write_the_reason(
    root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"method": "stacking", "not_fitted": "too few validation patients have Mild"}
    write_json(workplace / "data" / "methods" / "stacking" / "card.json", card)
    run_stage(root, monkeypatch, "attack_method", method="stacking", suite="quick")
    assert "nothing to attack: too few validation patients have Mild" in capsys.readouterr().out
    record = read_metrics(workplace / "metrics" / "methods" / "stacking-quick.json")
    assert record["not_fitted"] == card["not_fitted"]
    attempts = read_table(workplace / "data" / "attacks" / "methods" / "stacking" / "quick.parquet")
    assert (list(attempts.columns), len(attempts)) == (list(ATTEMPTS), 0)
    assert read_table(workplace / "plots" / "methods" / "stacking-quick.csv").empty
    run_stage(root, monkeypatch, "check_method", method="stacking")
    checks = workplace / "metrics" / "checks" / "stacking-method.json"
    record = read_metrics(checks)
    assert record["not_fitted"] == card["not_fitted"]
    assert record["made_on"]["suites"] == {}, "as the report compares them"
    assert read_json(checks)["verdict"] == "not fitted"


def test_a_transfer_that_is_switched_off_belongs_to_the_run_too(
    root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = read_params(workplace / "params.yaml")
    params["transfer"]["images"] = 0
    save(workplace, params)
    run_stage(root, monkeypatch, "transfer")
    images = open_splits(workplace / "data" / "prepared", workplace / "data" / "split.csv")
    record = read_metrics(workplace / "metrics" / "transfer.json")
    assert record["n"] == 0
    assert record[MADE_ON] == {**images.hashes, "suites": {}, "models": {}}
