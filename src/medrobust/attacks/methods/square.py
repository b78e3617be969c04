"""Square attack: random search by score queries, without gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.attacks.projection import per_image
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.core.params.base import Count
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import signs, uniform

#: Query counts, of 10,000, at which the share of pixels that a square covers is halved (section 3.2 of the paper).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(IterativeAttack):
    """Square attack in the Linf or L2 ball (Andriushchenko et al. 2020), with the margin loss.

    In Linf, one square changes its sign; in L2, energy moves from one square to another. `p_init` is the share of
    the pixels that the first squares cover; None = 0.8 in Linf, 0.1 in L2. `rescale` scales the paper's schedule
    of 10,000 queries to `queries`; AutoAttack does not.
    """

    queries: Count = 1000
    p_init: Part | None = None
    rescale: bool = True

    @property
    def num_steps(self) -> int:
        """All queries except the one that evaluates the last image."""
        return self.queries - 1

    def begin(self, state: AttackState, warm: Tensor) -> None:
        _, channels, _, width = state.images.shape
        stream = state.restart << 40
        if self.norm == "L2":
            state.current = self._scaled(state, self._tiles(state, stream))
        else:
            stripes = signs(state.seeds, stream, (channels, 1, width))
            state.current = state.project(state.images + state.radius * stripes)

    def step(self, state: AttackState, found: tuple[Tensor, ...]) -> Tensor:
        _, channels, height, width = state.images.shape
        query, stream = state.steps + 1, state.restart << 40
        side = self._side(query, height, width)
        if self.norm == "L2":
            shift = state.best - state.images
            for size in side.unique().tolist():
                rows = side == size
                shift[rows] = self._exchange(state.take(rows), shift[rows], size)
            return self._scaled(state, shift)
        stream = stream + 2 * query
        corner = uniform(state.seeds, stream, (2,))
        first = [(corner[:, axis] * (extent - side + 1)).floor() for axis, extent in enumerate((height, width))]
        change = 2 * state.radius * signs(state.seeds, stream + 1, (channels, 1, 1))
        return state.project(state.best + change * _window(first[0], first[1], side, height, width)[:, None])

    def _side(self, query: Tensor, height: int, width: int) -> Tensor:
        """Side of the square in pixels at each image's query, int64 n; in L2 it is odd, and three or more."""
        limits = torch.tensor(HALVINGS, device=query.device)
        halvings = (query[:, None] * 10_000 > limits * (self.queries if self.rescale else 10_000)).sum(1)
        share = self.p_init or (0.1 if self.norm == "L2" else 0.8)
        side = (share / 2**halvings * height * width).sqrt().round().long()
        if self.norm == "Linf":
            return side.clamp(1, min(height, width) - 1)
        side = side.clamp_min(3)
        return (side + (side % 2 == 0)).clamp_max(min(height, width))

    def _scaled(self, state: AttackState, shift: Tensor) -> Tensor:
        """Images with perturbations, masked and scaled to the length of the radius."""
        if state.mask is not None:
            shift = shift * state.mask
        length = per_image(shift.flatten(1).norm(dim=1)).clamp_min(1e-12)
        return state.project(state.images + shift * (state.radius / length))

    def _tiles(self, state: AttackState, stream: Tensor) -> Tensor:
        """The first perturbation in L2: tiles of a fifth of the image's side, with a random sign per channel."""
        count, channels, height, width = state.images.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        tile = _bumps(side, state.images)
        sign = signs(state.seeds, stream, (channels, down, across)).to(tile)
        turned = signs(state.seeds, stream + 1, (1, down, across))[..., None, None] > 0
        tiles = sign[..., None, None] * torch.where(turned, tile, tile.T)
        grid = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
        shift = torch.zeros_like(state.images)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        shift[:, :, top : top + down * side, left : left + across * side] = grid
        return shift

    def _exchange(self, state: AttackState, shift: Tensor, side: int) -> Tensor:
        """Clear one square and move its energy, and the rest of the budget, into another."""
        count, channels, height, width = shift.shape
        stream = (state.restart << 40) + 3 * (state.steps + 1)
        draws = uniform(state.seeds, stream, (4,))
        corners = (draws * (torch.tensor([height, width, height, width], device=draws.device) - side + 1)).long()
        target, source = (_window(corners[:, at], corners[:, at + 1], side, height, width) for at in (0, 2))
        either = (target | source)[:, None]
        sign = signs(state.seeds, stream + 1, (channels, 1, 1)).to(shift)
        tile = _bumps(side, shift)
        turned = signs(state.seeds, stream + 2, (1, 1, 1)) > 0
        old = shift[target[:, None].expand_as(shift)].view(count, channels, side, side)
        new = sign * torch.where(turned, tile, tile.T) + old / _length(old, (2, 3))
        spare = (state.radius**2 - shift.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
        energy = (shift * either).square().sum((1, 2, 3), keepdim=True)
        new = new / _length(new, (2, 3)) * (spare + energy).sqrt()
        shift = shift.masked_fill(source[:, None], 0)
        return shift.masked_scatter(target[:, None].expand_as(shift), new)


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


def _window(top: Tensor, left: Tensor, side: int | Tensor, height: int, width: int) -> Tensor:
    """Bool n×height×width: the squares with these corners and sides, each n or one for all."""
    bands = []
    for first, extent in ((top[:, None], height), (left[:, None], width)):
        index, length = torch.arange(extent, device=top.device)[None], torch.as_tensor(side, device=top.device)
        bands.append((index >= first) & (index < first + length.view(-1, 1)))
    return bands[0][:, :, None] & bands[1][:, None]


def _length(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return values.square().sum(dims, keepdim=True).sqrt().clamp_min(1e-12)
