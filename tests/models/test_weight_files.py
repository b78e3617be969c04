"""Files of weights are read as training scripts, wrappers and self-supervised releases write them."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from medrobust.core.errors import UserError
from medrobust.models.weight_files import load_weights


def vit(size: int) -> Any:
    return timm.create_model("vit_tiny_patch16_224", img_size=size, num_classes=2, depth=1)


@pytest.fixture
def source() -> Any:
    torch.manual_seed(1)
    return vit(32)


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module.backbone.", "module._orig_mod."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model", "teacher"])
def test_prefixes_and_wrappers_are_removed(source: Any, tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    state = prefixed(source.state_dict(), prefix)
    torch.save({"epoch": 3, wrapper: state} if wrapper else state, tmp_path / "w.pth")
    model = vit(32)
    load_weights(model, tmp_path / "w.pth")
    for key, value in model.state_dict().items():
        assert key.startswith("head.") or torch.equal(value, source.state_dict()[key])


def test_the_teacher_of_a_self_supervised_checkpoint_is_its_backbone_alone(source: Any, tmp_path: Path) -> None:
    teacher = {**prefixed(source.state_dict(), "backbone."), "dino_head.mlp.0.weight": torch.zeros(3)}
    torch.save({"teacher": teacher, "student": {"x": torch.zeros(1)}}, tmp_path / "w.pth")
    model = vit(32)
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.cls_token, source.cls_token)


def test_the_head_beside_a_prefixed_backbone_does_not_hide_the_prefix(source: Any, tmp_path: Path) -> None:
    state = {key: value for key, value in source.state_dict().items() if not key.startswith("head.")}
    head = {"head.weight": torch.zeros(5, 192), "head.bias": torch.zeros(5)}
    torch.save({**prefixed(state, "backbone."), **head}, tmp_path / "w.pth")
    model = vit(32)
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.cls_token, source.cls_token)


def test_a_position_embedding_of_another_grid_is_resampled_as_timm_does(source: Any, tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = vit(64)
    load_weights(model, tmp_path / "w.pth")
    expected = resample_abs_pos_embed(source.pos_embed.detach(), [4, 4], [2, 2])
    assert model.pos_embed.shape != source.pos_embed.shape
    assert torch.allclose(model.pos_embed, expected, atol=1e-5)


def test_a_wrapped_file_of_another_network_is_refused(tmp_path: Path) -> None:
    other = timm.create_model("resnet10t").state_dict()
    torch.save({"state_dict": prefixed(other, "module.")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit VisionTransformer: \d+ wrong, \d+ missing keys"):
        load_weights(vit(32), tmp_path / "w.pth")
