"""Classifiers take images in [0, 1]; checkpoints are loaded as they were saved, or refused."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import file_hash, read_json, write_json
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier, set_trainable
from medrobust.models.classifier import Classifier

CLASSES = ["a", "b", "c"]


def block(**changes: Any) -> ModelParams:
    return ModelParams.model_validate({"timm": "resnet10t", "weights": "none", "image_size": 32, **changes})


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return build_classifier(block(), CLASSES).eval()


def test_grey_is_the_same_as_three_equal_channels(classifier: Classifier) -> None:
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(classifier(images), classifier(images.expand(-1, 3, -1, -1)), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (20, 30)])
def test_any_size_gives_float32_logits_and_features(classifier: Classifier, size: tuple[int, int]) -> None:
    images = torch.rand(2, 1, *size)
    assert classifier(images).shape == (2, 3)
    assert classifier(images).dtype == torch.float32
    assert classifier.features(images).shape == (2, 512)


def test_normalisation_is_that_of_torchvision(classifier: Classifier) -> None:
    from torchvision.transforms import Normalize

    images = torch.rand(2, 3, 32, 32)
    normalise = Normalize(classifier.mean.flatten().tolist(), classifier.std.flatten().tolist())
    assert torch.allclose(classifier.backbone(normalise(images)), classifier(images), atol=1e-5)


def test_input_can_stay_without_the_mean_and_deviation_of_the_weights(tmp_path: Path) -> None:
    plain = build_classifier(block(normalise=False), CLASSES).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain.backbone(images), plain(images))
    checkpoint.save(tmp_path / "m", plain, block(normalise=False), {})
    assert torch.equal(checkpoint.load(tmp_path / "m")(images), plain(images))


def test_dinov2_takes_any_multiple_of_14() -> None:
    model = build_classifier(block(timm="vit_small_patch14_dinov2", image_size=28), CLASSES).eval()
    assert model(torch.rand(1, 1, 64, 64)).shape == (1, 3)
    with pytest.raises(UserError, match=r"image_size: got 30 .*multiple of 14, such as 28"):
        build_classifier(block(timm="vit_small_patch14_dinov2", image_size=30), CLASSES)


FAMILIES = [
    "resnet18", "resnet50", "resnext26ts", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
    pytest.param("vgg11_bn", marks=pytest.mark.slow), "efficientnet_lite0", "mobilenetv3_small_050",
    "convnext_atto", "densenet121", "regnetx_002", "swin_tiny_patch4_window7_224",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_every_family_is_set_in_params_alone(name: str, trainable: str) -> None:
    """One step of training: frozen parameters and statistics stay bit-equal, and the head changes."""
    torch.manual_seed(0)
    head = {} if "distilled" in name else {"widths": [8], "dropout": 0.1}  # two linear heads take no MLP
    model = build_classifier(block(timm=name, head=head), CLASSES)
    set_trainable(model, trainable)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert 0 < len(trained) < len(list(model.parameters()))
    optimiser = torch.optim.SGD(trained, lr=0.5)
    images = torch.rand(4, 3 if trainable == "head" else 1, 32, 32)
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
    optimiser.step()
    now = model.state_dict()
    moved = {key for key in before if not torch.equal(now[key], before[key])}
    if trainable == "head":
        heads = model.backbone.get_classifier()  # type: ignore[operator]
        inside = {
            id(value) for head in (heads if isinstance(heads, tuple) else (heads,)) for value in head.parameters()
        }
        assert {id(parameter) for parameter in trained} == inside
    free = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert moved & free
    assert not moved & {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert model.eval().features(images).ndim == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg19_bn", "resnet34", "efficientnet_b0"])
def test_the_named_backbones_build(name: str) -> None:
    assert build_classifier(block(timm=name), CLASSES).eval()(torch.rand(1, 1, 32, 32)).shape == (1, 3)


def test_an_mlp_head_has_the_widths_and_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    own = block(head={"widths": [16, 8], "dropout": 0.2})
    model = build_classifier(own, CLASSES).eval()
    kinds = [type(layer).__name__ for layer in model.backbone.get_classifier()]  # type: ignore[operator]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 2 + ["Linear"]
    widths = [layer.out_features for layer in model.backbone.get_classifier() if hasattr(layer, "out_features")]  # type: ignore[operator]
    assert widths == [16, 8, 3]
    checkpoint.save(tmp_path / "m", model, own, {})
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(checkpoint.load(tmp_path / "m")(images), model(images))
    with pytest.raises(UserError, match="does not end in one linear layer"):
        build_classifier(block(timm="deit_tiny_distilled_patch16_224", head={"widths": [4]}), CLASSES)


def test_frozen_parts_and_their_statistics_do_not_change() -> None:
    model = build_classifier(block(), CLASSES)
    set_trainable(model, "last:1")
    model.train()
    names = {key.split(".")[1] for key, value in model.named_parameters() if value.requires_grad}
    assert names == {"layer4", "fc"}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.rand(4, 1, 32, 32))
    moved = {key.split(".")[1] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"layer4"}
    with pytest.raises(UserError, match=r"last:9, but ResNet has 5 groups"):
        set_trainable(model, "last:9")


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UserError, match=r"timm has no 'resnet35x'.*resnet"):
        build_classifier(block(timm="resnet35x"), CLASSES)


def test_weights_from_a_file_are_loaded_without_the_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = build_classifier(block(), ["x"] * 7)
    save_file(
        {key: value.contiguous() for key, value in source.backbone.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    model = build_classifier(block(weights=str(tmp_path / "w.safetensors")), CLASSES)
    own, given = model.backbone.state_dict(), source.backbone.state_dict()
    for key in own:
        assert key.startswith("fc") or torch.equal(own[key], given[key])
    assert model.backbone.fc.weight.shape == (3, 512)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"does not fit .* keys \(\S+: expected none, found \("):
        build_classifier(block(timm="resnet18", weights=str(tmp_path / "w.safetensors")), CLASSES)


@pytest.mark.parametrize("prefix", ["module.", "model.backbone."])
def test_a_prefix_that_a_wrapper_gave_to_all_weights_is_left_out(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = build_classifier(block(), CLASSES).backbone.state_dict()
    state = {f"{prefix}{key}": value for key, value in source.items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(3)}}, tmp_path / "w.pth")
    found = build_classifier(block(weights=str(tmp_path / "w.pth")), CLASSES).backbone.state_dict()
    assert all(torch.equal(found[key], source[key]) for key in found if not key.startswith("fc"))


def test_weights_that_were_saved_on_a_gpu_load_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_classifier(block(), CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        torch.save(source.backbone.state_dict(), tmp_path / "w.pth")
    model = build_classifier(block(weights=str(tmp_path / "w.pth")), CLASSES)
    assert torch.equal(model.backbone.conv1[0].weight, source.backbone.conv1[0].weight)  # type: ignore[index, union-attr]


def test_missing_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        build_classifier(block(weights=str(tmp_path / "w.safetensors")), CLASSES)
    (tmp_path / "w.safetensors").write_bytes(b"\x01" * 20)
    with pytest.raises(UserError, match="holds no weights"):
        build_classifier(block(weights=str(tmp_path / "w.safetensors")), CLASSES)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("text.pth", b"hello world this is no file\n" * 10, r"holds no weights \("),
        ("empty.pth", b"", r"holds no weights \((EOFError|Ran out)"),
        ("plain.pth", pickle.dumps({"a": 1}), r"holds no weights \(Weights only load failed"),
        ("module.pth", torch.nn.Linear(2, 2), r"holds no weights \(Weights only load failed\)\. .*state_dict\(\)"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of git LFS.*Run git lfs pull"),
        ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git LFS"),
        ("list.pth", [1, 2], "holds a list that is not a dict of names and tensors"),
        ("tensor.pth", torch.zeros(3), "holds a Tensor that is not a dict"),
        ("numbers.pth", {"epoch": 3}, "holds a dict that is not a dict of names and tensors"),
        ("folder.pth", None, r"holds no weights \(.*directory"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, name: str, content: Any, found: str) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"{name}: {found}"):
        build_classifier(block(weights=str(path)), CLASSES)


def test_weights_beside_an_optimiser_are_loaded_and_weights_with_nan_are_refused(tmp_path: Path) -> None:
    state = build_classifier(block(), CLASSES).backbone.state_dict()
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    model = build_classifier(block(weights=str(tmp_path / "w.pth")), CLASSES)
    assert torch.equal(model.backbone.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    state["conv1.0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"not finite \(conv1\.0\.weight\)"):
        build_classifier(block(weights=str(tmp_path / "w.pth")), CLASSES)


def test_an_unknown_tag_of_an_architecture_is_named() -> None:
    with pytest.raises(UserError, match=r"resnet18 has no tag 'nonsense'.*Known: .*resnet18\.a1_in1k"):
        build_classifier(block(timm="resnet18.nonsense"), CLASSES)


def test_the_error_of_an_unreachable_hub_names_the_two_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def refuse(name: str, pretrained: bool = False, **options: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError, match=r"cannot be fetched.*weights: none .*weights: <path"):
        build_classifier(block(weights="pretrained"), CLASSES)


def test_a_loaded_checkpoint_equals_the_saved_one(classifier: Classifier, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {"regime": "clean"})
    again = checkpoint.load(tmp_path / "m")
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(again(images), classifier(images))
    assert again.classes == CLASSES
    assert not again.training


def test_a_full_disk_keeps_the_old_checkpoint(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {"regime": "clean"})
    card = (tmp_path / "m" / "card.json").read_text()

    def full(state: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match=r"m: cannot be written: No space left"):
        checkpoint.save(tmp_path / "m", classifier, block(), {"regime": "adv"})
    assert (tmp_path / "m" / "card.json").read_text() == card
    assert checkpoint.load(tmp_path / "m").classes == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_weights_that_do_not_match_the_card_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {})
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x00")
    with pytest.raises(UserError, match=r"is not the file that card\.json describes"):
        checkpoint.load(tmp_path / "m")
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        checkpoint.load(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["c", "a", "b"]}, {"classes": ["a", "b"]}, {"classes": None}, {"model": "resnet10t"},
        {"model": {"timm": "resnet10t", "image_size": 64, "head": {"widths": [], "dropout": 0.0}}},
    ],
)  # fmt: skip
def test_a_card_that_was_changed_by_hand_is_refused(
    classifier: Classifier, tmp_path: Path, change: dict[str, Any]
) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {})
    path = tmp_path / "m" / "card.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(UserError, match=r"card\.json: has .*, but the weights were written with .*dvc checkout"):
        checkpoint.load(tmp_path / "m")


@pytest.mark.parametrize("card", [[], {}, {"model": {}, "classes": CLASSES}])
def test_a_card_without_weights_is_refused(classifier: Classifier, tmp_path: Path, card: Any) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {})
    write_json(tmp_path / "m" / "card.json", card)
    with pytest.raises(UserError, match=r"is not the file that card\.json describes"):
        checkpoint.load(tmp_path / "m")


def test_weights_without_classes_in_their_header_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m", classifier, block(), {})
    path, weights = tmp_path / "m" / "card.json", tmp_path / "m" / "model.safetensors"
    save_file(load_file(weights), weights)
    write_json(path, {**read_json(path), "sha256": file_hash(weights)})
    with pytest.raises(UserError, match=r"header has no classes.*to train it again"):
        checkpoint.load(tmp_path / "m")


@pytest.mark.parametrize("known", [{"tail": 1}, {"timm": "resnet18"}])
def test_a_checkpoint_of_other_versions_names_them(
    classifier: Classifier, tmp_path: Path, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = block().model_dump(include={"timm", "image_size", "head"}) | known
    monkeypatch.setattr(ModelParams, "model_dump", lambda *_, **__: model)
    checkpoint.save(tmp_path / "m", classifier, block(), {})
    with pytest.raises(UserError, match=r"installed versions build another network .*wrote it .*'timm'"):
        checkpoint.load(tmp_path / "m")


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, medrobust; assert 'torch' not in sys.modules; medrobust.load; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import medrobust

    with pytest.raises(AttributeError):
        _ = medrobust.nothing
