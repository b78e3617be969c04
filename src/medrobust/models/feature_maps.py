"""Where a classifier has feature maps: the layers whose output has a place in the image, and their grids."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medrobust.core.errors import UserError


@dataclass(frozen=True)
class MapLayer:
    """A layer of a backbone that sees places.

    Attributes:
        name: as the backbone calls it.
        module: whose output is meant.
        prefix: tokens before those of the places (class token, registers).
        grid: rows and columns of the tokens, as the backbone says; None where it does not.
        channels_last: whether the backbone hands maps on as n×h×w×C.
    """

    name: str
    module: nn.Module
    prefix: int = 0
    grid: tuple[int, int] | None = None
    channels_last: bool = False

    def maps(self, output: Tensor) -> Tensor:
        """The layer's output (or its gradient) as maps, n×C×h×w.

        Raises:
            UserError: tokens that do not fill the grid.
        """
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        places = output.shape[1] - self.prefix
        if output.ndim != 3 or self.grid is None or self.grid[0] * self.grid[1] != places:
            found = f"an output of {tuple(output.shape)} does not fill a grid of {self.grid}"
            raise UserError(f"model, layer {self.name}", found, "Take a model whose tokens stand for patches")
        maps: Tensor = output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return maps


def map_layers(model: nn.Module) -> list[MapLayer]:
    """The layers of a `Classifier` that Grad-CAM can look at, early to late; [] for another network.

    Of convolutional networks: timm's stages. Of vision transformers: the tokens that enter the last attention,
    because behind it only the class token reaches the answer.
    """
    backbone: Any = getattr(model, "backbone", None)
    stages = [str(info["module"]) for info in getattr(backbone, "feature_info", [])]
    facts: dict[str, Any] = {
        "prefix": int(getattr(backbone, "num_prefix_tokens", 0)),
        "grid": _token_grid(backbone, int(getattr(model, "image_size", 0))),
        "channels_last": str(getattr(backbone, "output_fmt", "")).endswith("NHWC"),
    }
    blocks = getattr(backbone, "blocks", None)
    if hasattr(backbone, "num_prefix_tokens") and blocks is not None and hasattr(blocks[-1], "norm1"):
        return [MapLayer(f"blocks.{len(blocks) - 1}.norm1", blocks[-1].norm1, **facts)]
    return [MapLayer(name, backbone.get_submodule(name), **facts) for name in stages]


def _token_grid(backbone: Any, size: int) -> tuple[int, int] | None:
    """Rows and columns of patches of an image of `size` pixels, as timm's patch embedding tells them."""
    embedding: Any = getattr(backbone, "patch_embed", None)
    if hasattr(embedding, "dynamic_feat_size"):
        rows, columns = embedding.dynamic_feat_size((size, size))
    elif getattr(embedding, "grid_size", None) is not None:
        rows, columns = embedding.grid_size
    else:
        return None
    return int(rows), int(columns)
