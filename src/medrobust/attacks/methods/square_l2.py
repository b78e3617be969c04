"""Square attack in the L2 ball: random search that moves energy from one square of the image to another."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.methods.square import HALVINGS
from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import Norm, per_image
from medrobust.core.params.base import Count
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import signs, uniform


@dataclass(frozen=True, kw_only=True)
class SquareL2(TargetableAttack):
    """Square attack for L2 (Andriushchenko et al. 2020), margin loss; hyper-parameters as for `square.Square`."""

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    norm: Norm = "L2"
    queries: Count = 1000
    p_init: Part = 0.1
    rescale: bool = True

    @property
    def cost(self) -> float:
        return self.queries / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(problem.images)
        self._try(problem, best.unreached(), self._tiles(problem), best)
        for query, rows, part in best.rounds(problem, range(1, self.queries)):
            shift = self._exchange(part, best.images[rows] - part.images, query)
            self._try(part, rows, shift, best)
        return best.images

    def _try(self, part: Problem, rows: Tensor, shift: Tensor, best: BestImages) -> None:
        """Evaluate perturbations, masked and scaled to length eps."""
        if part.mask is not None:
            shift = shift * part.mask
        length = per_image(shift.flatten(1).norm(dim=1)).clamp_min(1e-12)
        images = part.project(part.images + shift * (self.eps / length))
        best.update(rows, images, *part.evaluate(images))

    def _tiles(self, problem: Problem) -> Tensor:
        """The first perturbation: tiles of a fifth of the image's side, with a random sign per channel."""
        count, channels, height, width = problem.images.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        tile = _bumps(side, problem.images)
        sign = signs(problem.seeds, 0, (channels, down, across)).to(tile)
        turned = signs(problem.seeds, 1, (1, down, across))[..., None, None] > 0
        tiles = sign[..., None, None] * torch.where(turned, tile, tile.T)
        grid = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
        shift = torch.zeros_like(problem.images)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        shift[:, :, top : top + down * side, left : left + across * side] = grid
        return shift

    def _exchange(self, part: Problem, shift: Tensor, query: int) -> Tensor:
        """Clear one square and move its energy, and the rest of the budget, into another."""
        count, channels, height, width = shift.shape
        side = self._side(query, height, width)
        draws = uniform(part.seeds, 3 * query, (4,))
        extents = torch.tensor([height, width, height, width], device=draws.device)
        corners = (draws * (extents - side + 1)).long()
        target, source = (_window(corners[:, at : at + 2], side, height, width) for at in (0, 2))
        either = (target | source)[:, None]
        sign = signs(part.seeds, 3 * query + 1, (channels, 1, 1)).to(shift)
        tile = _bumps(side, shift)
        turned = signs(part.seeds, 3 * query + 2, (1, 1, 1)) > 0
        old = shift[target[:, None].expand_as(shift)].view(count, channels, side, side)
        new = sign * torch.where(turned, tile, tile.T) + old / _length(old, (2, 3))
        spare = (self.eps**2 - shift.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
        energy = (shift * either).square().sum((1, 2, 3), keepdim=True)
        new = new / _length(new, (2, 3)) * (spare + energy).sqrt()
        shift = shift.masked_fill(source[:, None], 0)
        return shift.masked_scatter(target[:, None].expand_as(shift), new)

    def _side(self, query: int, height: int, width: int) -> int:
        """Side of the square in pixels: odd, and at least three if the image is large enough."""
        scale = self.queries if self.rescale else 10_000
        halvings = sum(query * 10_000 > limit * scale for limit in HALVINGS)
        side: int = max(round((self.p_init / 2**halvings * height * width) ** 0.5), 3)
        side += side % 2 == 0
        return min(side, height, width)


def _bumps(side: int, like: Tensor) -> Tensor:
    """Two bumps of opposite sign, one above the other, scaled to length 1: side×side (the paper's update)."""
    shape = torch.zeros(side, side, dtype=like.dtype, device=like.device)
    top = side // 2
    for first, extent, sign in ((0, top, 1.0), (top, side - top, -1.0)):
        if not extent:
            continue
        row = torch.arange(extent, device=like.device)[:, None] - extent // 2
        column = torch.arange(side, device=like.device)[None] - side // 2
        ring = torch.maximum(row.abs(), column.abs())
        rings = max(extent // 2 + 1, side // 2 + 1)
        heights = 1.0 / torch.arange(1, rings + 1, dtype=like.dtype, device=like.device).square()
        # A ring belongs to every larger square around the centre.
        total = heights.flip(0).cumsum(0).flip(0)
        bump = total[ring.clamp_max(rings - 1)]
        shape[first : first + extent] = sign * bump / bump.norm()
    return shape / shape.norm()


def _window(corner: Tensor, side: int, height: int, width: int) -> Tensor:
    """Bool n×height×width: the squares with these top left corners (int64 n×2)."""
    bands = []
    for axis, extent in enumerate((height, width)):
        index, first = torch.arange(extent, device=corner.device)[None], corner[:, axis, None]
        bands.append((index >= first) & (index < first + side))
    return bands[0][:, :, None] & bands[1][:, None]


def _length(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return values.square().sum(dims, keepdim=True).sqrt().clamp_min(1e-12)
