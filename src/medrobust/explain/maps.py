"""Maps of the pixels that matter for a class: Grad-CAM, and the gradient with respect to the pixels."""

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, input_gradient
from medrobust.models.feature_maps import MapLayer, grad_cam, map_layers, recorded

BATCH = 32


def choose_layer(model: nn.Module, image: Tensor, cells: int) -> tuple[MapLayer, tuple[int, int]] | None:
    """The deepest layer whose grid has at least `cells` per side, and that grid (rows, columns); None without any.

    The last stage is closest to the prediction, but for small images its grid has two cells per side. If every
    layer is coarser than `cells`, the finest one is used. The grids are measured on `image`, 1×C×H×W in [0, 1].
    """
    layers = map_layers(model)
    with recorded([layer.module for layer in layers]) as seen, torch.no_grad():
        model(image)
    sizes = [tuple(layer.maps(output).shape[-2:]) for layer, (_, output) in zip(layers, seen, strict=True)]
    if not sizes:
        return None
    fine = [number for number, size in enumerate(sizes) if min(size) >= cells]
    index = fine[-1] if fine else max(range(len(sizes)), key=lambda number: min(sizes[number]))
    return layers[index], (sizes[index][0], sizes[index][1])


def explanation_maps(
    model: nn.Module, images: Tensor, classes: Tensor, layer: MapLayer | None
) -> dict[str, np.ndarray]:
    """Maps of what raises the logit of a class, by kind; float32 n×H×W, each scaled to a maximum of 1.

    `gradcam` (Selvaraju et al. 2017) is left out if the model has no layer for it, and is all zero if no cell
    raises the logit. `saliency` (Simonyan et al. 2014) is the absolute gradient of the logit with respect to each
    pixel, the largest of the channels. The model is in eval mode; images are n×C×H×W in [0, 1], classes int64 n.
    """
    parts: dict[str, list[np.ndarray]] = {}
    with frozen(model):
        for rows in torch.arange(len(images)).split(BATCH):
            batch, targets = images[rows].detach(), classes[rows].to(images.device)
            if layer is None:
                gradient = _logit_gradient(model, batch, targets)
            else:
                cams, gradient = grad_cam(model, batch, targets, layer)
                parts.setdefault("gradcam", []).append(cams)
            parts.setdefault("saliency", []).append(gradient.abs().amax(1).cpu().numpy())
    return {kind: _scaled(np.concatenate(batches)) for kind, batches in parts.items()}


def _logit_gradient(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    return input_gradient(model, images, lambda logits, _: logits.gather(1, classes[:, None]))[2]


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its largest value; a map of zeros stays zero."""
    largest = maps.max((1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps, dtype=np.float32), where=largest > 0)
