"""The stage scripts on tiny models, with the command lines of dvc.yaml."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_metrics, read_table, write_json
from medrobust.detection.guard import load_guard
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.card import weights_hash
from medrobust.models.combination import Combination
from medrobust.models.ensemble import save_ensemble
from tests.params import preset, save
from tests.stages import CLASSES, SIDE, run_stage, write_data


@pytest.fixture
def workplace(root: Path, suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, two models, their ensemble, a suite and params, in which stages run."""
    params = preset("smoke")
    params["attacks"]["suites"] = {"pgd": {"norm": "Linf", "eps": [0.05], "attacks": [{"name": "pgd"}]}}
    adaptive = {"attacks": ["joint", "matching"], "images": 4, "steps": 1, "searches": 1}
    params["detect"] |= {
        "ensemble": ["adv"], "detectors": {"gmm": {}, "dfeat": {}, "dropout": {"rate": 0.3, "samples": 2}},
        "suites": {"pgd": 0.05}, "adaptive": adaptive,
    }  # fmt: skip
    params["report"]["bootstrap"] = 20
    save(tmp_path, params)
    write_data(tmp_path / "data")
    write_json(tmp_path / "data" / "resolved" / "settings" / "resnet10t" / "detect.json", {"regimes": ["clean"]})
    write_json(tmp_path / "data" / "resolved" / "suites" / "pgd" / "suite.json", suite)
    block = ModelParams(timm="resnet10t", weights="none", image_size=SIDE)
    checkpoints = tmp_path / "data" / "checkpoints" / "resnet10t"
    folders = {regime: checkpoints / regime for regime in ("clean", "adv")}
    for seed, folder in enumerate(folders.values()):
        torch.manual_seed(seed)
        checkpoint.save(folder, build_classifier(block, CLASSES), block, {})
    save_ensemble(tmp_path / "data" / "ensemble", folders, Combination(weights=[0.25, 0.75]), {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "item", "name"),
    [
        ("detect", {"backbone": "resnet10t", "regime": "clean"}, "resnet10t-clean"),
        ("detect_ensemble", {"regime": "adv"}, "ensemble-adv"),
    ],
)
def test_a_stage_guards_its_model_and_writes_every_out(
    stage: str, item: dict[str, str], name: str, root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(root, monkeypatch, "detection")
    run_stage(root, monkeypatch, stage, **item)
    row = read_metrics(workplace / "metrics" / "detect" / f"{name}.json")["suites"]["pgd"]["gmm"]
    # By image and by patient, without and with the detector, for unaware and aware attackers.
    for record in (row, row["adaptive"]["unaware"], row["adaptive"]["worst"]):
        for unit in ("image", "patient"):
            assert all({"cost_without", "cost_with"} <= set(cost) for cost in record["risk"][unit].values())
    risk = read_table(workplace / "plots" / "detect" / name / "risk.csv")
    assert set(risk["detector"]) == {"gmm", "dfeat", "dropout"}
    assert set(risk["attacker"]) == {"unaware", "aware"}
    assert {"clean", "pgd", "pgd+joint"} <= set(
        read_table(workplace / "data" / "detect" / f"{name}.parquet")["images"]
    )
    guard = load_guard(workplace / "data" / "guards" / name)
    if stage == "detect_ensemble":
        assert guard.model == weights_hash(workplace / "data" / "ensemble")
        # Features of the ensemble: the 512 of each member, and all of them concatenated.
        assert guard.detectors["gmm"].detector.state["widths"].tolist()[:3] == [512, 512, 1024]
