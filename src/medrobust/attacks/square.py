"""Square attack: random search with score queries only, blind to gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin, project
from medrobust.attacks.random import signs, uniform

#: Share of pixels that a square covers, halved at these counts of 10,000 queries (the paper's section 3.2).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack for Linf (Andriushchenko et al. 2020, algorithms 1 and 2), untargeted, margin loss.

    Attributes:
        queries: score queries an image.
        p_init: share of the pixels that the first squares cover.
    """

    queries: int = 1000
    p_init: float = 0.8

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        with torch.no_grad():
            return self._search(model, images, labels, seeds)

    def _search(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        _, channels, height, width = images.shape
        stripes = signs(seeds, 0, (channels, 1, width))
        best = project(images + self.eps * stripes, images, self.eps)
        loss = margin(model(best), labels)
        for query in range(1, self.queries):
            left = torch.nonzero(loss <= 0).squeeze(1)
            if not len(left):
                break
            side = self._side(query, height, width)
            corner = uniform(seeds[left], 2 * query, (2,))
            window = _window(corner[:, 0], height, side)[:, :, None] & _window(corner[:, 1], width, side)[:, None]
            change = 2 * self.eps * signs(seeds[left], 2 * query + 1, (channels, 1, 1)) * window[:, None]
            tried = project(best[left] + change, images[left], self.eps)
            new = margin(model(tried), labels[left])
            better = new > loss[left]
            best[left[better]], loss[left[better]] = tried[better], new[better]
        return best

    def _side(self, query: int, height: int, width: int) -> int:
        halvings = sum(query / self.queries * 10_000 > limit for limit in HALVINGS)
        side: int = round((self.p_init / 2**halvings * height * width) ** 0.5)
        return min(max(side, 1), min(height, width) - 1)


def _window(corner: Tensor, extent: int, side: int) -> Tensor:
    """Bool n×extent: `side` places from a random first one on, `corner` in [0, 1)."""
    first = (corner * (extent - side + 1)).floor()[:, None]
    place = torch.arange(extent, device=corner.device)[None]
    return (place >= first) & (place < first + side)
