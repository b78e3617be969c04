"""Square attack: random search by score queries, without gradients."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.projection import per_image, project
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.core.params.base import Count
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import signs, uniform

#: Query counts, of 10,000, at which the share of pixels that a square covers is halved (section 3.2 of the paper).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(IterativeAttack):
    """Square attack for Linf (Andriushchenko et al. 2020), untargeted, with the margin loss.

    `p_init` is the share of the pixels that the first squares cover. `rescale` scales the paper's schedule of
    10,000 queries to `queries`; AutoAttack does not.
    """

    uses_gradient: ClassVar[bool] = False
    queries: Count = 1000
    p_init: Part = 0.8
    rescale: bool = True

    @property
    def num_steps(self) -> int:
        """All queries except the one that evaluates the last image."""
        return self.queries - 1

    def begin(self, state: AttackState, warm: Tensor) -> None:
        _, channels, _, width = state.images.shape
        stripes = signs(state.seeds, state.restart << 40, (channels, 1, width))
        radius = per_image(state.eps)
        state.current = project(state.images + radius * stripes, state.images, radius)

    def step(self, state: AttackState, gradient: Tensor) -> Tensor:
        _, channels, height, width = state.images.shape
        query, stream = state.steps + 1, (state.restart << 40) + 2 * (state.steps + 1)
        side = self._side(query, height, width)
        corner = uniform(state.seeds, stream, (2,))
        window = _window(corner[:, 0], height, side)[:, :, None] & _window(corner[:, 1], width, side)[:, None]
        radius = per_image(state.eps)
        change = 2 * radius * signs(state.seeds, stream + 1, (channels, 1, 1)) * window[:, None]
        return project(state.best + change, state.images, radius)

    def _side(self, query: Tensor, height: int, width: int) -> Tensor:
        """Side of the square in pixels at each image's query, int64 n."""
        limits = torch.tensor(HALVINGS, device=query.device)
        halvings = (query[:, None] * 10_000 > limits * (self.queries if self.rescale else 10_000)).sum(1)
        side = (self.p_init / 2**halvings * height * width).sqrt().round().long()
        return side.clamp(1, min(height, width) - 1)


def _window(corner: Tensor, extent: int, side: Tensor) -> Tensor:
    """Bool n×extent: `side` consecutive pixels (int64 n) from a random first one, given as `corner` in [0, 1)."""
    first = (corner * (extent - side + 1)).floor()[:, None]
    index = torch.arange(extent, device=corner.device)[None]
    return (index >= first) & (index < first + side[:, None])
