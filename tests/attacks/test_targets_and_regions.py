"""Target classes and regions of attacks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.methods.apgd import APGD
from medrobust.attacks.methods.iterative import BIM, PGDL2, IteratedGradient
from medrobust.attacks.methods.minimal import FAB, DeepFool
from medrobust.attacks.regions import find_mask, foreground, gradcam
from medrobust.attacks.targets import choose_targets
from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.models.ensemble import EnsembleClassifier
from tests.attacks.conftest import AttackedModel

Make = Callable[..., AttackedModel]
COSTS = [[0, 1, 2, 5], [9, 0, 1, 2], [9, 3, 0, 1], [7, 8, 2, 0]]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("next_down", [0, 0, 1, 2]),
        ("next_up", [1, 2, 3, 3]),
        ("healthy", [0, 0, 0, 0]),
        ("most_costly", [3, 0, 0, 1]),
        (2, [2, 2, 2, 2]),
        ("mild", [2, 2, 2, 2]),
    ],
)
def test_a_rule_gives_each_image_its_target(target: Any, wanted: list[int]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    model.classes = ["none", "very mild", "mild", "moderate"]  # type: ignore[assignment]
    images = torch.rand(4, 1, 2, 2)
    assert choose_targets(model, images, torch.arange(4), target, COSTS).tolist() == wanted


def test_the_least_likely_class_is_never_the_label() -> None:
    layer = nn.Linear(4, 3)
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor([0.0, 1.0, 2.0])
    model = nn.Sequential(nn.Flatten(), layer)
    found = choose_targets(model, torch.rand(3, 1, 2, 2), torch.arange(3), "least_likely", None)
    assert found.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "worse"}, r"no class or rule 'worse'.*next_down.*0 to 3"),
        ({"target": 4}, "no class or rule 4"),
        ({"target": "most_costly"}, "most_costly with no costs"),
        ({"target": "most_costly", "costs": [[0, 1], [1]]}, "costs that is not square"),
        ({"target": "most_costly", "costs": [[0, 1], [1, 0]]}, "2 x 2 for 4 classes"),
        ({"mask": "tumor"}, r"mask: got 'tumor'.*'foreground', 'background', 'gradcam' or 'outlined'"),
        ({"mask": "outlined"}, "no masks beside the images"),
        ({"mask": "foreground", "top": 0.0}, "top: got 0.0"),
        ({"mask": torch.ones(2, 1, 12, 10)}, r"\(2, 1, 12, 10\) for images \(32, 1, 12, 10\)"),
        ({"mask": "gradcam"}, "no Grad-CAM for AttackedModel"),
    ],
)
def test_an_invalid_target_or_region_is_refused(
    settings: dict[str, Any], message: str, attacked_model: Make
) -> None:
    model = attacked_model(4)
    with pytest.raises(UserError, match=message):
        BIM(eps=0.1, **settings)(model, model.images, model.labels, seeds=model.seeds)


@pytest.mark.parametrize(
    "make",
    [
        lambda **target: IteratedGradient(eps=0.6, steps=40, **target),
        lambda **target: PGDL2(eps=4.0, steps=20, **target),
        lambda **target: APGD(eps=0.6, steps=40, loss="margin", **target),
        lambda **target: FAB(eps=0.5, steps=30, **target),
        lambda **target: DeepFool(eps=0.5, **target),
    ],
)
@pytest.mark.parametrize("target", ["healthy", "next_up"])
def test_a_targeted_attack_reaches_its_target(make: Any, target: str, attacked_model: Make) -> None:
    """Images whose label is the target stay clean."""
    model = attacked_model(4)
    found = make(target=target)(model, model.images, model.labels, seeds=model.seeds)
    wanted = choose_targets(model, model.images, model.labels, target, None)
    free = wanted != model.labels
    assert (model(found).argmax(1) == wanted)[free].float().mean() > 0.9
    assert torch.equal(found[~free], model.images[~free])


def test_a_targeted_attack_does_not_stop_at_another_wrong_class() -> None:
    """Class 1 lies between class 0 and class 2."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 3))
    model[1].weight.data, model[1].bias.data = torch.tensor([[0.0], [10.0], [30.0]]), torch.tensor([0.0, -4, -16])
    dark, label = torch.full((1, 1, 1, 1), 0.3), torch.tensor([0])
    settings: dict[str, Any] = {"eps": 0.6, "steps": 20, "random_start": False, "loss": "margin"}
    plain = IteratedGradient(**settings)(model, dark, label, seeds=label)
    targeted = IteratedGradient(target=2, **settings)(model, dark, label, seeds=label)
    assert (model(plain).argmax().item(), model(targeted).argmax().item()) == (1, 2)


def test_foreground_uses_the_threshold_of_otsu() -> None:
    """The threshold lies between a dark background and a bright region of another size."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 + 0.03 * torch.randn(2, 1, 20, 30, generator=generator)
    images[0, :, 5:12, 8:20] += 0.5
    images[1, :, :15, :] += 0.3
    wanted = torch.zeros(2, 1, 20, 30, dtype=torch.bool)
    wanted[0, :, 5:12, 8:20] = wanted[1, :, :15, :] = True
    images = images.clamp(0, 1)
    assert torch.equal(foreground(images), wanted)
    assert torch.equal(foreground(images.expand(-1, 3, -1, -1)), wanted)
    assert not foreground(torch.full((1, 1, 4, 4), 0.5)).any(), "an image of a single value has none"


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("region", ["foreground", "background"])
def test_pixels_outside_the_region_stay(region: Any, norm: Any, attacked_model: Make) -> None:
    model = attacked_model(4)
    mask = find_mask(model, model.images, model.labels, region, 0.1)
    eps = 0.2 if norm == "Linf" else 2.0
    for make in (IteratedGradient, APGD, FAB, DeepFool):
        found = make(eps=eps, norm=norm, mask=region)(model, model.images, model.labels, seeds=model.seeds)
        assert torch.equal(found[~mask], model.images[~mask])
        assert (found != model.images).any()


def test_the_mask_is_applied_before_the_norm() -> None:
    """In L2 the whole radius is used inside the mask. Masking afterwards would leave part of it unused."""
    layer = nn.Linear(16, 2)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), layer)
    layer.bias.data = torch.tensor([50.0, 0.0])
    clean, label = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 0, 0] = True
    found = PGDL2(eps=0.3, steps=10, mask=mask)(model, clean, label, seeds=label)
    assert (found - clean).norm().item() == pytest.approx(0.3, rel=1e-4)


def test_an_empty_mask_leaves_the_images_clean(attacked_model: Make) -> None:
    model = attacked_model(4)
    nothing = torch.zeros(32, 1, 12, 10)
    for make in (IteratedGradient, APGD, FAB):
        found = make(eps=0.3, mask=nothing)(model, model.images, model.labels, seeds=model.seeds)
        assert torch.equal(found, model.images)


@pytest.fixture(scope="module")
def classifiers() -> dict[str, Classifier]:
    """A convolutional and a transformer classifier, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {}
        for name, size in (("resnet10t", 64), ("vit_small_patch14_dinov2", 56)):
            params = ModelParams(timm=name, weights="none", image_size=size)
            made[name] = build_classifier(params, ["a", "b", "c"]).eval()
    return made


def their_gradcam(model: Classifier, layer: nn.Module, images: Tensor, reshape: Any) -> Tensor:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=model, target_layers=[layer], reshape_transform=reshape) as cam:
        found = cam(input_tensor=images, targets=[ClassifierOutputTarget(k) for k in range(len(images))])
    for param in model.parameters():
        param.grad = None
    return torch.from_numpy(found)


@pytest.mark.parametrize("name", ["resnet10t", "vit_small_patch14_dinov2"])
def test_importance_agrees_with_the_grad_cam_library(name: str, classifiers: dict[str, Classifier]) -> None:
    model = classifiers[name]
    images, labels = torch.rand(3, 1, 56, 56, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    backbone: Any = model.backbone
    if name == "resnet10t":
        wanted = their_gradcam(model, backbone.layer4, images, None)
    else:

        def grid(tokens: Tensor) -> Tensor:
            return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

        wanted = their_gradcam(model, backbone.blocks[-1].norm1, images, grid)
    ours = gradcam(model, images, labels)
    assert ours.shape == (3, 56, 56)
    assert torch.equal(ours.flatten(1).any(1), wanted.flatten(1).any(1))
    for mine, other in zip(ours, wanted, strict=True):
        if mine.any():  # else no position raises the logit of this class
            assert torch.corrcoef(torch.stack([mine.flatten(), other.flatten()]))[0, 1] > 0.98, "OpenCV resizes"
    assert ours.any()


def test_the_share_of_pixels_that_matter_most_may_change(classifiers: dict[str, Classifier]) -> None:
    model = classifiers["resnet10t"]
    images, labels = torch.rand(3, 1, 40, 30), torch.tensor([0, 1, 2])
    mask = find_mask(model, images, labels, "gradcam", 0.25)
    assert mask.shape == (3, 1, 40, 30)
    assert mask.flatten(1).sum(1).tolist() == [300, 300, 300]
    importance = gradcam(model, images, labels)[:, None]
    for row in range(3):
        assert importance[row][mask[row]].min() >= importance[row][~mask[row]].max() - 1e-6
    both = EnsembleClassifier([model, model], [0.5, 0.5]).eval()
    assert torch.allclose(gradcam(both, images, labels), gradcam(model, images, labels))
