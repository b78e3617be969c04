"""The network under patient models."""

from pathlib import Path

import pytest
import torch

from medrobust.core.params.training import ModelParams
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small timm network for three classes."""
    torch.manual_seed(0)
    block = ModelParams(timm="resnet10t", weights="none", image_size=32)
    folder = tmp_path_factory.mktemp("models") / "net"
    checkpoint.save(folder, build_classifier(block, ["a", "b", "c"]), block, {"regime": "clean"})
    return folder
