"""A folder with images, a suite and a model, of which an export can be made."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.core.params.training import ModelParams
from medrobust.core.records import write_json
from medrobust.export.run import ExportData
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from tests.stages import CLASSES, SIDE, write_data

BLOCK = ModelParams(timm="resnet10t", weights="none", image_size=24)


def write_model(folder: Path, classes: list[str], seed: int = 0) -> Path:
    """A checkpoint whose answers depend on the image: its head has larger weights than a new one."""
    torch.manual_seed(seed)
    model = build_classifier(BLOCK, classes)
    for parameter in model.backbone.get_classifier().parameters():  # type: ignore[operator]
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoint.save(folder, model, BLOCK, {"regime": "clean"})
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` with 16 test images of 32 pixels in grey and a suite; `model` with a network for 24 pixels."""
    folder = tmp_path_factory.mktemp("export")
    write_data(folder / "data")
    entry: dict[str, Any] = {"name": "pgd", "hyperparameters": {"steps": 2}}
    suite = {"name": "pgd", "norm": "Linf", "eps": [0.01, 0.05], "give_up": False, "attacks": [entry], "code": {}}
    write_json(folder / "data" / "resolved" / "suites" / "pgd" / "suite.json", suite)
    write_model(folder / "models" / "small" / "clean", CLASSES)
    assert SIDE == 32
    return folder


@pytest.fixture
def data(place: Path) -> ExportData:
    """What an export is compared on."""
    prepared = place / "data"
    return ExportData(prepared / "prepared", prepared / "split.csv", prepared / "resolved" / "suites", images=6)
