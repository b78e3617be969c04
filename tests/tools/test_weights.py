"""Exported weights of timm are read back as a file of weights."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.models.build import build_classifier
from tests.params import preset, save
from tools.weights import export

RESNET = {"timm": "resnet10t", "weights": "pretrained", "image_size": 32}


def test_the_weights_of_every_backbone_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def trained(name: str, pretrained: bool = False, **options: Any) -> Any:
        torch.manual_seed(7 if pretrained else 8)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", trained)
    content = preset("smoke")
    content["models"] = {"one": RESNET, "two": {**RESNET, "image_size": 48}}
    content["explain"]["images"] = 0
    paths = export(save(tmp_path, content), tmp_path / "weights")
    assert [path.name for path in paths] == ["one.safetensors", "two.safetensors"]
    block = ModelParams.model_validate({**RESNET, "weights": str(paths[0])})
    loaded = build_classifier(block, ["a", "b"]).backbone.state_dict()
    expected = trained("resnet10t", pretrained=True).state_dict()
    assert torch.equal(loaded["conv1.0.weight"], expected["conv1.0.weight"])


def test_an_unreachable_hub_is_named_and_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, pretrained: bool = False, **options: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    content = preset("smoke")
    content["models"] = {"one": RESNET}
    with pytest.raises(UserError, match="cannot be fetched"):
        export(save(tmp_path, content), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
