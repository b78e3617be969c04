"""Patch: any content inside one square of the image (after Brown et al. 2017)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.methods.iterative import IteratedGradient
from medrobust.attacks.problem import Problem
from medrobust.attacks.projection import Norm
from medrobust.attacks.state import AttackState
from medrobust.attacks.targets import Loss
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count
from medrobust.core.seeds import uniform


@dataclass(frozen=True, kw_only=True)
class Patch(IteratedGradient):
    """Signed gradient steps within [0, 1] inside one square per image; `eps` is the share of its pixels.

    The square has the largest side of whole pixels within this share. The first start places it where the gradient
    of the loss at the clean image promises the largest gain within [0, 1]. Later ones draw the position. (Rao,
    Stutz & Schiele 2020 search for the position as well, by moving the square between steps.) A start from an
    image that was found with a larger square keeps the part of that patch with the largest change.

    With a region (`mask`), the square lies where it holds the most pixels of the region, and its other pixels
    stay: with `background` the patch lies beside the anatomy.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("patch",)
    norm: Norm = "patch"
    loss: Loss = "margin"
    steps: Count = 40
    restarts: Count = 3
    random_start: bool = False

    @property
    def reach(self) -> float:
        """Inside the square, a value may change by 1."""
        return 1.0

    @property
    def cost(self) -> float:
        """The first position takes one gradient."""
        return super().cost + 1

    def problem(
        self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, eps: float | Tensor
    ) -> Problem:
        """The problem of a batch; a UserError if a square has no pixel, or does not fit into the image."""
        problem = super().problem(model, images, labels, seeds, eps)
        height, width = images.shape[2:]
        sides = _sides(problem)
        for side in (int(sides.min()), int(sides.max())):
            if not 1 <= side <= min(height, width):
                found = f"a square of {side} x {side} pixels in images of {height} x {width}"
                least, most = 1 / (height * width), min(height, width) ** 2 / (height * width)
                raise UserError("attack.eps", found, f"Use a share from {least:.3g} to {most:.3g}")
        return problem

    def begin(self, state: AttackState, warm: Tensor) -> None:
        window = _window(state, self._corners(state))
        state.mask = window if state.mask is None else window & state.mask
        state.current = state.apply_mask(state.current)
        super().begin(state, warm)

    def _corners(self, state: AttackState) -> Tensor:
        """The upper left pixel of each image's square, as an index into its pixels; int64 n."""
        height, width = state.images.shape[2:]
        moved = (state.current - state.images).abs().sum(1)
        score = _sums(moved, state)
        fresh = ~moved.flatten(1).any(1)
        first, later = (torch.nonzero(fresh & (state.restart > 0).eq(drawn)).squeeze(1) for drawn in (False, True))
        if len(first):
            part = state.take(first)
            slope = part.gradient(part.images, self.losses(part), self.eot)[2]
            room = torch.where(slope > 0, 1 - part.images, part.images)
            score[first] = _sums((slope.abs() * room).sum(1), part)
        if len(later):
            score[later] = uniform(state.seeds[later], state.restart[later], (height, width)).to(score)
        inside = _sums(torch.ones_like(moved) if state.mask is None else state.mask[:, 0], state)
        most = inside.flatten(1).amax(1)[:, None, None]
        return score.masked_fill(inside < most - 0.5, -torch.inf).flatten(1).argmax(1)


def _sides(problem: Problem) -> Tensor:
    """The side of each image's square in pixels, int64 n."""
    height, width = problem.images.shape[2:]
    share = torch.as_tensor(problem.eps, dtype=torch.float64, device=problem.images.device)
    sides = (share * (1 + TOLERANCE) * height * width).sqrt().floor().long()
    return sides.expand(len(problem.images))


def _sums(values: Tensor, problem: Problem) -> Tensor:
    """Sums of values, n×H×W, over each image's square by its upper left pixel; it ends at the image's border."""
    sums = values.double().cumsum(1).cumsum(2)
    sums = torch.nn.functional.pad(sums, (1, 0, 1, 0))
    each = torch.arange(len(values), device=values.device)[:, None, None]
    (top, down), (left, right) = (
        (first[None], (first + _sides(problem)[:, None]).clamp_max(len(first)))
        for first in (torch.arange(extent, device=values.device) for extent in values.shape[1:])
    )
    top, down, left, right = top[:, :, None], down[:, :, None], left[:, None], right[:, None]
    return sums[each, down, right] - sums[each, top, right] - sums[each, down, left] + sums[each, top, left]


def _window(problem: Problem, corners: Tensor) -> Tensor:
    """Bool n×1×H×W: the square of each image."""
    height, width = problem.images.shape[2:]
    sides = _sides(problem)[:, None]
    rows, columns = (
        (index >= first[:, None]) & (index < first[:, None] + sides)
        for index, first in (
            (torch.arange(height, device=corners.device), corners // width),
            (torch.arange(width, device=corners.device), corners % width),
        )
    )
    return rows[:, None, :, None] & columns[:, None, None]
