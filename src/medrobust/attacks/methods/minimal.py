"""Attacks that look for the smallest change: DeepFool and FAB. They walk along the linearised decision boundary.

Neither knows the radius while it walks, so both are unbound: what they find counts where it lies in the ball.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import Norm, per_image
from medrobust.attacks.methods.apgd import wrong_classes
from medrobust.attacks.problem import GoalAttack, Problem
from medrobust.core.errors import UserError
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count, NotNegative, Part

#: A difference of logits that float32 still tells from 0, as a share of the largest logit: some 80 units of it.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class DeepFool(GoalAttack):
    """Steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, algorithm 2; Linf: section 3.3).

    The paper has no box: clipped to [0, 1], its steps fall short of the boundary, ever less, and would end on it,
    where rounding decides. So each one aims a little beyond, by what float32 tells from 0 (`ROUNDING`).

    Attributes:
        steps: at most; an image that is over the boundary leaves.
        overshoot: share of the way that is added, to be over the boundary and not on it.
    """

    bound: ClassVar[bool] = False
    steps: Count = 50
    overshoot: NotNegative = 0.02

    @property
    def cost(self) -> float:
        """A gradient for every class (of four) and step."""
        return self.steps * 4

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """Images just over the boundary, at whatever distance."""
        result = problem.images.clone()
        way = torch.zeros_like(result)
        rows = torch.arange(len(result), device=result.device)
        for _ in range(self.steps):
            part = problem.take(rows)
            logits, gaps, slopes = boundaries(part, result[rows])
            on = ~part.reached(logits)
            if not on.any():
                break
            rows, part, gaps, slopes = rows[on], part.take(on), gaps[on], slopes[on]
            gap, slope = nearest(gaps, slopes, self.norm)
            # The point nearest in the norm of the plane gap + slope·x = 0, and a little beyond.
            direction = slope.sign() if self.norm == "Linf" else slope
            beyond = ROUNDING * logits[on].abs().amax(1)
            size = (gap.abs() + beyond) / (direction * slope).flatten(1).sum(1).clamp_min(1e-12)
            way[rows] += per_image(size) * direction
            result[rows] = (part.images + (1 + self.overshoot) * way[rows]).clamp(0, 1)
        return result


@dataclass(frozen=True, kw_only=True)
class FAB(GoalAttack):
    """Fast adaptive boundary attack (Croce & Hein 2020b, algorithm 1), towards the nearest boundary.

    Attributes:
        steps: of each restart.
        restarts: the first starts at the image, the others at random within half the radius.
        alpha_max: largest weight of the way back to the clean image.
        eta: overshoot of each projection.
        beta: how far a step back from the boundary leaves the image.
        minimise: look for the smallest change to the end; False: an image leaves once it is inside the ball.
    """

    bound: ClassVar[bool] = False
    steps: Count = 100
    restarts: Count = 1
    alpha_max: Part = 0.1
    eta: Positive = 1.05
    beta: Part = 0.9
    minimise: bool = True

    @property
    def cost(self) -> float:
        """A gradient for every class (of four) and step, and a look at the result."""
        return self.steps * self.restarts * (4 + 1 / 3)

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The nearest image over the boundary that was found; the clean one where none was."""
        found = _Found(problem)
        self._walk(problem, found, 0)
        return found.images

    def _walk(self, problem: Problem, found: "_Found", stream: int) -> None:
        for restart in range(self.restarts):
            rows = found.rows(self.minimise)
            part = problem.take(rows)
            current = part.images
            if restart:
                reach = per_image(0.5 * found.distance[rows].clamp_max(self.eps))
                current = part.project(current + reach * part.direction(stream + restart))
            for _ in range(self.steps):
                if not len(rows):
                    return
                current = self._step(part, current)
                over = part.judge(current)[1]
                found.see(rows, current, part.distance(current), over)
                current = torch.where(per_image(over), part.images + self.beta * (current - part.images), current)
                on = torch.full_like(over, self.minimise) | (found.distance[rows] > self.eps)
                rows, part, current = rows[on], part.take(on), current[on]

    def _step(self, part: Problem, current: Tensor) -> Tensor:
        """Project the current and the clean image on the boundary and mix them, as the paper does."""
        _, gaps, slopes = boundaries(part, current)
        gap, plane = nearest(gaps, slopes, self.norm)
        slope, here, home = plane.flatten(1), current.flatten(1), part.images.flatten(1)
        offset = (slope * here).sum(1) - gap
        step, leap = (to_plane(point, slope, offset, self.norm) for point in (here, home))
        order = torch.inf if self.norm == "Linf" else 2
        near, far = (
            torch.linalg.vector_norm(way, order, dim=1, keepdim=True).clamp_min(1e-8) for way in (step, leap)
        )
        share = (near / (near + far)).clamp_max(self.alpha_max)
        mixed: Tensor = (here + self.eta * step) * (1 - share) + (home + self.eta * leap) * share
        return part.confine(mixed.clamp(0, 1).view_as(current))


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """FAB towards one wrong class after the other, likeliest first: `fab-t` of AutoAttack.

    Attributes:
        targets: classes to try; all wrong ones where there are fewer.
    """

    targets: Count = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise UserError("attack.target", f"got {self.target!r}", "fab takes a target; fab_t tries them all")

    @property
    def cost(self) -> float:
        """One gradient and one look a step, as if all targets were tried (a model of ten classes)."""
        return self.steps * self.restarts * self.targets * (1 + 1 / 3)

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The nearest image over any boundary."""
        found = _Found(problem)
        for rank, aims in enumerate(wrong_classes(problem, self.targets)):
            self._walk(problem.aimed(aims), found, rank * self.restarts)
        return found.images


class _Found:
    """The nearest image over the boundary that each image has found."""

    def __init__(self, problem: Problem) -> None:
        self.images, self.eps = problem.images.clone(), problem.eps
        self.distance = torch.full_like(self.images.flatten(1)[:, 0], torch.inf)

    def rows(self, everybody: bool) -> Tensor:
        """All rows, or those that have found nothing inside the ball."""
        return torch.nonzero((self.distance > self.eps) | everybody).squeeze(1)

    def see(self, rows: Tensor, images: Tensor, distance: Tensor, over: Tensor) -> None:
        """Note what lies over the boundary and nearer than before."""
        nearer = over & (distance < self.distance[rows])
        self.images[rows[nearer]], self.distance[rows[nearer]] = images[nearer], distance[nearer]


def boundaries(problem: Problem, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far each boundary is in logits, and where it rises.

    Returns:
        Logits n×K; gaps n×B, negative before the boundary, 0 on it; and their gradients n×B×C×H×W. B = 1 with
        an aim (that class against the label, or against all others where it is the target), else K - 1.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = problem.model(images)
        if problem.targets is not None:
            gaps = problem.margins(logits)[:, None]
        elif problem.aim is not None:
            gaps = logits.gather(1, problem.aim[:, None]) - logits.gather(1, problem.labels[:, None])
        else:
            count = logits.shape[1]
            others = torch.arange(count, device=images.device).expand_as(logits)
            others = others[others != problem.labels[:, None]].view(len(logits), count - 1)
            gaps = logits.gather(1, others) - logits.gather(1, problem.labels[:, None])
        last = gaps.shape[1] - 1
        slopes = [
            torch.autograd.grad(gaps[:, place].sum(), images, retain_graph=place < last)[0]
            for place in range(last + 1)
        ]
    stacked = torch.stack(slopes, 1)
    if problem.region is not None:
        stacked = stacked * problem.region[:, None]
    return logits.detach(), gaps.detach(), stacked


def nearest(gaps: Tensor, slopes: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Of B linearised boundaries the nearest in the norm: its gap, n, and its gradient, n×C×H×W."""
    dual = slopes.flatten(2).abs().sum(2) if norm == "Linf" else slopes.flatten(2).norm(dim=2)
    best = (gaps.abs() / (dual + 1e-12)).argmin(1)
    rows = torch.arange(len(best), device=best.device)
    return gaps[rows, best], slopes[rows, best]


def to_plane(points: Tensor, slope: Tensor, offset: Tensor, norm: Norm) -> Tensor:
    """The smallest step, n×d, from each point to the plane slope·x = offset inside [0, 1]^d.

    Where the box does not meet the plane: the step to the corner that comes nearest. A step of length s moves
    each coordinate by min(s·unit, room), unit being 1 in Linf and |slope| in L2; what that gains along the slope
    is piecewise linear in s, so s follows from the sorted places where coordinates run out of room.
    """
    kind = points.dtype
    points, slope, offset = points.double(), slope.double(), offset.double()
    need = offset - (slope * points).sum(1)
    push = slope.sign() * need.sign()[:, None]
    room = torch.where(push > 0, 1 - points, points)
    weight = slope.abs()
    unit = torch.ones_like(weight) if norm == "Linf" else weight
    limit, order = (room / unit.clamp_min(1e-300)).sort(1)
    spent = (weight * room).gather(1, order).cumsum(1)
    rate = (weight * unit).gather(1, order)
    rate = rate.sum(1, keepdim=True) - rate.cumsum(1)  # of the coordinates that still have room
    gain = spent + limit * rate.clamp_min(0)
    index = torch.searchsorted(gain, need.abs()[:, None])
    before = (index - 1).clamp_min(0)
    first = index == 0
    done = spent.gather(1, before).masked_fill(first, 0)
    pace = torch.where(first, (weight * unit).sum(1, keepdim=True), rate.gather(1, before))
    length = (need.abs()[:, None] - done) / pace.clamp_min(1e-300)
    length = torch.where(index == limit.shape[1], torch.inf, length)
    step = push * torch.minimum(torch.nan_to_num(length * unit, nan=0.0), room)
    return step.to(kind)
