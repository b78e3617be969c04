"""Square attack: random search with score queries only, blind to gradients."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import per_image, project
from medrobust.attacks.state import Stepwise, Walk
from medrobust.core.params.hyperparameters import Count, Part
from medrobust.core.seeds import signs, uniform

#: Share of pixels that a square covers, halved at these counts of 10,000 queries (the paper's section 3.2).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(Stepwise):
    """Square attack for Linf (Andriushchenko et al. 2020), untargeted, margin loss.

    Attributes:
        queries: score queries an image.
        p_init: share of the pixels that the first squares cover.
        rescale: shrink the squares over these queries, as over the paper's 10,000; AutoAttack does not.
    """

    gradient: ClassVar[bool] = False
    queries: Count = 1000
    p_init: Part = 0.8
    rescale: bool = True

    @property
    def moves(self) -> int:
        """Every query but the one that judges the last image."""
        return self.queries - 1

    def begin(self, walk: Walk, warm: Tensor) -> None:
        _, channels, _, width = walk.images.shape
        stripes = signs(walk.seeds, walk.restart << 40, (channels, 1, width))
        radius = per_image(walk.eps)
        walk.current = project(walk.images + radius * stripes, walk.images, radius)

    def go(self, walk: Walk, gradient: Tensor) -> Tensor:
        _, channels, height, width = walk.images.shape
        query, stream = walk.step + 1, (walk.restart << 40) + 2 * (walk.step + 1)
        side = self._side(query, height, width)
        corner = uniform(walk.seeds, stream, (2,))
        window = _window(corner[:, 0], height, side)[:, :, None] & _window(corner[:, 1], width, side)[:, None]
        radius = per_image(walk.eps)
        change = 2 * radius * signs(walk.seeds, stream + 1, (channels, 1, 1)) * window[:, None]
        return project(walk.best + change, walk.images, radius)

    def _side(self, query: Tensor, height: int, width: int) -> Tensor:
        """Side of the square in pixels at each image's query, int64 n."""
        limits = torch.tensor(HALVINGS, device=query.device)
        halvings = (query[:, None] * 10_000 > limits * (self.queries if self.rescale else 10_000)).sum(1)
        side = (self.p_init / 2**halvings * height * width).sqrt().round().long()
        return side.clamp(1, min(height, width) - 1)


def _window(corner: Tensor, extent: int, side: Tensor) -> Tensor:
    """Bool n×extent: `side` places (int64 n) from a random first one on, `corner` in [0, 1)."""
    first = (corner * (extent - side + 1)).floor()[:, None]
    place = torch.arange(extent, device=corner.device)[None]
    return (place >= first) & (place < first + side[:, None])
