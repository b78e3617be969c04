"""Layers of a classifier whose output is a spatial map, recording of their outputs, and Grad-CAM on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MapLayer:
    """A layer with one output vector per cell of a grid over the image.

    `name` is that of the module inside the backbone. `prefix` tokens (class token, register tokens) come before
    the patch tokens. `grid` has the rows and columns of the patch tokens; None if the backbone does not report
    them. `channels_last`: the output is n×h×w×C.
    """

    name: str
    module: nn.Module
    prefix: int = 0
    grid: tuple[int, int] | None = None
    channels_last: bool = False

    def maps(self, output: Tensor) -> Tensor:
        """The layer's output (or its gradient) as maps, n×C×h×w.

        Raises:
            UserError: the tokens do not fill the grid.
        """
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        cells = output.shape[1] - self.prefix
        if output.ndim != 3 or self.grid is None or self.grid[0] * self.grid[1] != cells:
            found = f"an output of {tuple(output.shape)} does not fill a grid of {self.grid}"
            raise UserError(f"model, layer {self.name}", found, "Use a model with one token per patch")
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)


def map_layers(model: nn.Module) -> list[MapLayer]:
    """The layers of a `Classifier` that Grad-CAM can use, early to late; [] for other networks.

    Convolutional networks: the stages that timm lists. Vision transformers: the input of the last attention,
    because after it only the class token reaches the logits.
    """
    backbone: Any = getattr(model, "backbone", None)
    facts: dict[str, Any] = {
        "prefix": int(getattr(backbone, "num_prefix_tokens", 0)),
        "grid": _token_grid(backbone, int(getattr(model, "image_size", 0))),
        "channels_last": str(getattr(backbone, "output_fmt", "")).endswith("NHWC"),
    }
    blocks = getattr(backbone, "blocks", None)
    if hasattr(backbone, "num_prefix_tokens") and blocks is not None and hasattr(blocks[-1], "norm1"):
        return [MapLayer(f"blocks.{len(blocks) - 1}.norm1", blocks[-1].norm1, **facts)]
    return [MapLayer(name, backbone.get_submodule(name), **facts) for name in stage_names(backbone)]


def stage_names(backbone: Any) -> list[str]:
    """Module names of the stages that timm lists for a backbone, early to late; [] if it lists none."""
    return [str(info["module"]) for info in getattr(backbone, "feature_info", [])]


@contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect (input, output) of each module, in the given order, from one forward pass inside the block."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    result: list[tuple[Tensor, Tensor]] = []

    def record(position: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[position] = (inputs[0], output)
            if len(seen) == len(modules):
                result[:] = [seen[number] for number in range(len(modules))]

        return hook

    handles = [module.register_forward_hook(record(position)) for position, module in enumerate(modules)]
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor, layer: MapLayer) -> tuple["np.ndarray", Tensor]:
    """Grad-CAM (Selvaraju et al. 2017) by pytorch-grad-cam: which cells of a layer raise the logit of a class.

    The model is in eval mode; its parameters need no gradient (`attacks.base.frozen`). Images are n×C×H×W
    in [0, 1]; `classes`, int64 n, has the class that each map is about.

    Returns:
        Maps, float32 n×H×W from 0 to 1 (all 0 if no cell raises the logit), and the gradient of the logits with
        respect to the pixels, n×C×H×W, from the same backward pass.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]  # the library clears them
    images = images.detach().clone().requires_grad_(True)  # parameters need none, so backward ends at the pixels
    with (
        torch.enable_grad(),
        GradCAM(model=model, target_layers=[layer.module], reshape_transform=layer.maps) as cam,
    ):
        maps: np.ndarray = cam(images, [ClassifierOutputTarget(k) for k in classes.tolist()])
    for parameter, gradient in gradients:
        parameter.grad = gradient
    assert images.grad is not None
    return maps, images.grad


def _token_grid(backbone: Any, size: int) -> tuple[int, int] | None:
    """Rows and columns of patches of an image of `size` pixels, as timm's patch embedding reports them."""
    embedding: Any = getattr(backbone, "patch_embed", None)
    if hasattr(embedding, "dynamic_feat_size"):
        rows, columns = embedding.dynamic_feat_size((size, size))
    elif getattr(embedding, "grid_size", None) is not None:
        rows, columns = embedding.grid_size
    else:
        return None
    return int(rows), int(columns)
