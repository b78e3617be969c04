"""Architectures that build and fail when they are used are refused before any training, with the reason."""

import time
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.training import BackboneParams
from medrobust.models.trial import try_backbone

EVERYTHING = {"detect": ["clean"], "explain": True, "weights": "none"}


def attempt(timm: str, size: int, **changes: Any) -> None:
    """Try a backbone `b`."""
    try_backbone("b", BackboneParams.model_validate({"timm": timm, "image_size": size, **EVERYTHING, **changes}))


@pytest.mark.parametrize(("timm", "size", "changes"), [
    ("resnet10t", 32, {}), ("vit_tiny_patch16_224", 48, {"trainable": "last:2"}),
    ("mobilenetv3_small_100", 48, {}), ("resnet10t", 32, {"weights": "pretrained"}),
    ("resnet10t", 32, {"head": {"widths": [8]}}),
    ("pit_ti_224", 48, {"explain": False}), ("hrnet_w18_small", 64, {"explain": False}),
    ("poolformer_s12", 48, {"trainable": "head"}),
])  # fmt: skip
def test_what_works_passes_without_a_download(timm: str, size: int, changes: dict[str, Any]) -> None:
    attempt("resnet10t", 32)  # loads the libraries
    start = time.process_time()
    attempt(timm, size, **changes)
    assert time.process_time() - start < 5, "it should take a fraction of this"


@pytest.mark.parametrize(("timm", "size", "changes", "message"), [
    ("resnet33", 32, {}, r"b\.timm: timm has no 'resnet33'\. Similar names: .*resnet34"),
    ("levit_128s", 224, {}, r"b\.timm: Levit\w* ends in NormLinear"),
    ("repvit_m0_9", 64, {}, r"b\.timm: RepVit ends in RepVitClassifier"),
    ("crossvit_tiny_240", 240, {}, r"b\.timm: CrossVit ends in ModuleList"),
    ("inception_v3", 64, {}, r"b\.timm: inception_v3 at 64 pixels fails .*Kernel size.*timm's own is 299"),
    ("efficientformer_l1", 64, {}, r"b\.timm: efficientformer_l1 at 64 pixels fails .*timm's own is 224"),
    ("efficientformer_l1", 224, {}, r"b\.explain: .* does not fill a grid.*Set it to false"),
    ("poolformer_s12", 48, {"trainable": "last:1"}, r"b\.trainable: poolformer_s12 .*Set trainable: all or head"),
    ("resnet10t", 32, {"trainable": "last:99"}, r"models\.b\.trainable: last:99, but ResNet has"),
    ("pit_ti_224", 48, {}, r"b\.explain: pit_ti_224 at 48 pixels fails .*Set it to false"),
    ("hrnet_w18_small", 64, {}, r"b\.explain: hrnet_w18_small at 64 pixels fails .*Set it to false"),
    ("vit_tiny_patch16_224", 50, {}, r"b\.image_size: got 50 .*Use a multiple of 16"),
])  # fmt: skip
def test_what_fails_later_is_refused_with_its_key_and_reason(
    timm: str, size: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        attempt(timm, size, **changes)


def test_weights_that_do_not_fit_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=r"w\.pth: holds no weights"):
        attempt("resnet10t", 32, weights=str(tmp_path / "w.pth"))
