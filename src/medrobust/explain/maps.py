"""Maps of what an answer hangs on: Grad-CAM by the library pytorch-grad-cam, and the gradient by the pixels."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, input_gradient
from medrobust.models.feature_maps import MapLayer, map_layers

BATCH = 32
#: The kinds of maps, in the order in which they are shown.
KINDS = ("gradcam", "saliency")


def choose_layer(model: nn.Module, image: Tensor, cells: int) -> tuple[MapLayer, tuple[int, int]] | None:
    """The deepest layer with maps of at least `cells` a side, and its grid (rows, columns); None without layers.

    The last stage says most about the answer, but of small images its maps have two cells a side. Where every
    layer is coarser, the finest is taken.

    Args:
        model: in eval mode.
        image: 1×C×H×W in [0, 1]; the layers' sizes are seen on it.
        cells: a side.
    """
    layers = map_layers(model)
    with _outputs(layers) as outputs, torch.no_grad():
        model(image)
    sizes = [tuple(layer.maps(output).shape[-2:]) for layer, output in zip(layers, outputs, strict=True)]
    if not sizes:
        return None
    fine = [number for number, size in enumerate(sizes) if min(size) >= cells]
    place = fine[-1] if fine else max(range(len(sizes)), key=lambda number: min(sizes[number]))
    return layers[place], (sizes[place][0], sizes[place][1])


def explain(model: nn.Module, images: Tensor, classes: Tensor, layer: MapLayer | None) -> dict[str, np.ndarray]:
    """Maps of what speaks for a class, by kind; float32 n×H×W from 0 to 1, each scaled to its own largest value.

    `gradcam` (Selvaraju et al. 2017) says which places of a layer's maps raise the logit of the class; it is left
    out where the model has no such layer, and all zero where no place does. `saliency` (Simonyan et al. 2014) is
    the size of the logit's gradient by each pixel, the largest of the channels.

    Args:
        model: images in [0, 1] to logits.
        images: n×C×H×W.
        classes: int64, n; the class that each map speaks of.
        layer: what Grad-CAM looks at; None = no Grad-CAM.
    """
    parts: dict[str, list[np.ndarray]] = {}
    with frozen(model):
        for rows in torch.arange(len(images)).split(BATCH):
            batch, targets = images[rows].detach(), classes[rows].to(images.device)
            if layer is None:
                slope = _slope(model, batch, targets)
            else:
                cams, slope = _gradcam(model, batch, targets, layer)
                parts.setdefault("gradcam", []).append(cams)
            parts.setdefault("saliency", []).append(slope.abs().amax(1).cpu().numpy())
    return {kind: _scaled(np.concatenate(found)) for kind, found in parts.items()}


def _slope(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The gradient of each image's logit of its class by the pixels, n×C×H×W."""
    return input_gradient(model, images, lambda logits, _: logits.gather(1, classes[:, None]))[2]


def _gradcam(model: nn.Module, images: Tensor, classes: Tensor, layer: MapLayer) -> tuple[np.ndarray, Tensor]:
    """The library's maps, n×H×W, and the gradient by the pixels, n×C×H×W, which its backward pass leaves."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = images.clone().requires_grad_(True)  # the parameters need none, so the pass starts at the pixels
    with (
        torch.enable_grad(),
        GradCAM(model=model, target_layers=[layer.module], reshape_transform=layer.maps) as cam,
    ):
        found: np.ndarray = cam(images, [ClassifierOutputTarget(k) for k in classes.tolist()])
    assert images.grad is not None
    return found, images.grad


@contextmanager
def _outputs(layers: list[MapLayer]) -> Iterator[list[Tensor]]:
    """What each layer gives during one forward pass inside, in the order of `layers`."""
    seen: dict[int, Tensor] = {}
    result: list[Tensor] = []

    def note(place: int) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[place] = output
            if len(seen) == len(layers):
                result[:] = [seen[number] for number in range(len(layers))]

        return hook

    handles = [layer.module.register_forward_hook(note(n)) for n, layer in enumerate(layers)]  # type: ignore[arg-type]
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its largest value; a map of zeros stays one."""
    largest = maps.max((1, 2), keepdims=True)
    result: np.ndarray = np.divide(maps, largest, out=np.zeros_like(maps, dtype=np.float32), where=largest > 0)
    return result
