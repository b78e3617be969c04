"""Maps agree with an independent implementation of the papers and with finite differences."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.explain.maps import choose_layer, explanation_maps
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.models.feature_maps import MapLayer, map_layers


def tiny(**options: object) -> Classifier:
    """A small untrained vision transformer with class token and registers before 3×3 patches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
        backbone = timm.models.VisionTransformer(**{**sizes, **options})
        nn.init.normal_(backbone.head.weight, std=0.5)
    return Classifier(backbone, ["a", "b", "c"], 24, [0.5] * 3, [0.5] * 3).eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[Classifier, str]]:
    """Name -> a classifier, and the layer of its maps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = ModelParams(timm="resnet10t", weights="none", image_size=96)
        cnn = build_classifier(params, ["a", "b", "c"]).eval()
    return {"cnn": (cnn, "layer4"), "vit": (tiny(reg_tokens=2), "blocks.1.norm1")}


def own_gradcam(model: Classifier, layer: str, tokens: int, images: Tensor, classes: Tensor) -> Tensor:
    """Selvaraju et al. 2017: channel weights are mean gradients; the weighted sum, rectified, up to the image."""
    kept: list[Tensor] = []
    handle = model.backbone.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    logits = model(images.clone().requires_grad_(True))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[range(len(images)), classes].sum(), kept)
    maps = kept[0]
    if maps.ndim == 3:
        maps, gradient = (
            part[:, tokens:].reshape(len(part), 3, 3, -1).permute(0, 3, 1, 2) for part in (maps, gradient)
        )
    weighted = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    low, high = weighted.amin((1, 2), keepdim=True), weighted.amax((1, 2), keepdim=True)
    scaled = (weighted - low) / (high - low).clamp_min(1e-12)
    return F.interpolate(scaled[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize(("name", "prefix"), [("cnn", 0), ("vit", 3)])
def test_grad_cam_agrees_with_the_paper(
    networks: dict[str, tuple[Classifier, str]], name: str, prefix: int
) -> None:
    model, layer = networks[name]
    images, classes = torch.rand(6, 1, 40, 40, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    chosen = map_layers(model)[-1]
    assert (chosen.name, chosen.prefix) == (layer, prefix)
    found = explanation_maps(model, images, classes, chosen)["gradcam"]
    wanted = own_gradcam(model, layer, prefix, images, classes)
    seen = 0
    for mine, other in zip(found, wanted.numpy(), strict=True):
        if other.max() == 0:
            assert not mine.any()
        else:
            seen += 1
            np.testing.assert_allclose(mine / mine.max(), other / other.max(), atol=0.04)  # OpenCV resizes
    assert seen >= 3


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_is_the_slope_by_finite_differences(model: Classifier, channels: int) -> None:
    double = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, channels, 12, 12, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    # `forward` returns float32; finite differences need the float64 logits.

    def logits(pixels: Tensor) -> Tensor:
        found: Tensor = double.backbone(double._normalise(pixels))
        return found

    slopes = torch.zeros_like(image)
    step = 1e-5
    with torch.no_grad():
        for place in range(image.numel()):
            nudge = torch.zeros_like(image)
            nudge.view(-1)[place] = step
            slopes.view(-1)[place] = (logits(image + nudge) - logits(image - nudge))[0, 1] / (2 * step)
    wanted = slopes.abs().amax(1)
    found = explanation_maps(model, image.float(), torch.tensor([1]), None)
    assert set(found) == {"saliency"}, "no Grad-CAM without a layer"
    np.testing.assert_allclose(found["saliency"], (wanted / wanted.max()).numpy(), atol=1e-4)


@pytest.mark.parametrize("with_layer", [True, False])
def test_the_model_is_left_unchanged(model: Classifier, with_layer: bool) -> None:
    twin = copy.deepcopy(model).train()
    images = torch.rand(3, 1, 12, 12)
    layer = map_layers(twin)[-1] if with_layer else None
    maps = explanation_maps(twin, images, torch.tensor([0, 1, 2]), layer)
    assert twin.training
    assert all(p.grad is None and p.requires_grad for p in twin.parameters())
    assert not any(module._forward_hooks for module in twin.modules())
    assert not images.requires_grad
    for found in maps.values():
        assert found.shape == (3, 12, 12)
        assert found.min() >= 0
        assert found.max() <= 1


def test_gradients_that_the_model_holds_are_kept(model: Classifier) -> None:
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.grad = torch.ones_like(parameter)
    explanation_maps(twin, torch.rand(2, 1, 12, 12), torch.tensor([0, 1]), map_layers(twin)[-1])
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in twin.parameters())


def test_the_deepest_layer_with_enough_cells_is_used(model: Classifier) -> None:
    image = torch.rand(1, 1, 12, 12)
    for cells, name, grid in (
        (3, "deep", (6, 6)),
        (6, "deep", (6, 6)),
        (7, "stem", (12, 12)),
        (99, "stem", (12, 12)),
    ):
        chosen = choose_layer(model, image, cells)
        assert chosen is not None
        assert (chosen[0].name, chosen[1]) == (name, grid)


def test_a_network_without_stages_has_no_maps() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    assert map_layers(plain) == []
    assert choose_layer(plain, torch.rand(1, 1, 12, 12), 4) is None


def test_the_grid_of_tokens_is_the_models_own() -> None:
    (layer,) = map_layers(tiny(class_token=False, global_pool="avg"))
    assert (layer.prefix, layer.grid) == (0, (3, 3))
    (layer,) = map_layers(tiny())
    assert (layer.prefix, layer.grid) == (1, (3, 3))
    tokens = torch.arange(1 * 10 * 2).view(1, 10, 2)
    maps = layer.maps(tokens)
    assert maps.shape == (1, 2, 3, 3)
    assert maps[0, :, 0, 1].tolist() == tokens[0, 2].tolist()
    assert maps[0, :, 2, 2].tolist() == tokens[0, 9].tolist()
    with pytest.raises(UserError, match="does not fill a grid"):
        layer.maps(torch.zeros(1, 12, 2))


def test_maps_with_the_channels_last_are_turned() -> None:
    layer = MapLayer("x", nn.Identity(), channels_last=True)
    assert layer.maps(torch.zeros(2, 5, 6, 7)).shape == (2, 7, 5, 6)
