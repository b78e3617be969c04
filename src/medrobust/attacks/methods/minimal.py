"""Attacks that look for the smallest change, by steps to the linearised decision boundary: DeepFool and FAB.

Neither uses the radius in its steps, so their results count only if they lie inside the ball.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import gradient_of
from medrobust.attacks.problem import BestImages, EveryWrongClass, Problem, TargetableAttack
from medrobust.attacks.projection import Norm, distance, per_image
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.params.hyperparameters import Part

#: A difference of logits that float32 distinguishes from 0, as a share of the largest logit: about 80 units.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class DeepFool(TargetableAttack):
    """Steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, algorithm 2; Linf: section 3.3).

    Steps that are clipped to [0, 1] fall short of the boundary, so each step leads beyond it, by `ROUNDING`. An
    image stops once it has crossed. The share `overshoot` of the perturbation is added, so that the image is not
    on the boundary.
    """

    respects_ball: ClassVar[bool] = False
    steps: Count = 50
    overshoot: NotNegative = 0.02

    @property
    def cost(self) -> float:
        """One gradient per class (of four) and step."""
        return self.steps * 4

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        result = problem.images.clone()
        shift = torch.zeros_like(result)
        rows = torch.arange(len(result), device=result.device)
        for _ in range(self.steps):
            part = problem.take(rows)
            logits, gaps, slopes = boundaries(part, result[rows])
            on = ~part.reached(logits)
            if not on.any():
                break
            rows, part, gaps, slopes = rows[on], part.take(on), gaps[on], slopes[on]
            gap, slope = nearest(gaps, slopes, self.norm)
            # The nearest point, in the norm, of the plane gap + slope·x = 0, and slightly beyond.
            direction = slope.sign() if self.norm == "Linf" else slope
            beyond = ROUNDING * logits[on].abs().amax(1)
            size = (gap.abs() + beyond) / (direction * slope).flatten(1).sum(1).clamp_min(1e-12)
            shift[rows] += per_image(size) * direction
            result[rows] = (part.images + (1 + self.overshoot) * shift[rows]).clamp(0, 1)
        return result


@dataclass(frozen=True, kw_only=True)
class FAB(TargetableAttack):
    """Fast adaptive boundary attack (Croce & Hein 2020b, algorithm 1), towards the nearest boundary.

    The first restart starts at the clean image, the others at random within half the radius. `alpha_max` is the
    largest weight of the step from the clean image, `eta` the overshoot of each projection, and `beta` the share
    of the perturbation that a backward step from the boundary keeps. `minimise: false` stops once it is inside the
    ball.
    """

    respects_ball: ClassVar[bool] = False
    steps: Count = 100
    restarts: Count = 1
    alpha_max: Part = 0.1
    eta: Positive = 1.05
    beta: Part = 0.9
    minimise: bool = True

    @property
    def cost(self) -> float:
        """One gradient per class (of four) and step, and one evaluation of the result."""
        return self.steps * self.restarts * (4 + 1 / 3)

    @property
    def starts(self) -> int:
        return self.restarts

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The nearest images beyond the boundary; the score of an image is minus its distance."""
        best = BestImages(problem.images)
        for number in range(self.starts):
            rows = torch.nonzero((-best.scores > self.eps) | self.minimise).squeeze(1)
            if not len(rows) or not self._run(problem.take(rows), best, rows, number):
                break
        return best.images

    def aim(self, problem: Problem, start: int) -> Tensor | None:
        """The class, n, towards which a start leads; None = the nearest one."""
        return problem.loss_targets

    def _run(self, part: Problem, best: BestImages, rows: Tensor, number: int) -> bool:
        """Run a start; return whether there was a class to lead to."""
        part.loss_targets = self.aim(part, number)
        if part.loss_targets is not None and bool((part.loss_targets == part.labels).all()):
            return False
        current = part.images
        if number % self.restarts:
            length = per_image(0.5 * (-best.scores[rows]).clamp_max(self.eps))
            current = part.project(current + length * part.direction(number))
        for _ in range(self.steps):
            if not len(rows):
                break
            current = self._step(part, current)
            crossed = part.reached(part.logits(current))
            length = distance(current, part.images, self.norm)
            best.update(current, torch.where(crossed, -length, torch.nan), rows)
            back = part.images + self.beta * (current - part.images)
            current = torch.where(per_image(crossed), back, current)
            on = (-best.scores[rows] > self.eps) | self.minimise
            rows, part, current = rows[on], part.take(on), current[on]
        return True

    def _step(self, part: Problem, current: Tensor) -> Tensor:
        """Project the current and the clean image onto the boundary and mix both, as in the paper."""
        _, gaps, slopes = boundaries(part, current)
        gap, plane = nearest(gaps, slopes, self.norm)
        slope, points, clean = plane.flatten(1), current.flatten(1), part.images.flatten(1)
        offset = (slope * points).sum(1) - gap
        step, step_from_clean = (to_plane(start, slope, offset, self.norm) for start in (points, clean))
        order = torch.inf if self.norm == "Linf" else 2
        length, length_from_clean = (
            torch.linalg.vector_norm(shift, order, dim=1, keepdim=True).clamp_min(1e-8)
            for shift in (step, step_from_clean)
        )
        share = (length / (length + length_from_clean)).clamp_max(self.alpha_max)
        mixed: Tensor = (points + self.eta * step) * (1 - share) + (clean + self.eta * step_from_clean) * share
        return part.apply_mask(mixed.clamp(0, 1).view_as(current))


@dataclass(frozen=True, kw_only=True)
class FABT(EveryWrongClass, FAB):
    """FAB towards one wrong class after the other: AutoAttack's `fab-t`."""

    @property
    def cost(self) -> float:
        """One gradient and one evaluation per step, if all targets are tried (a model with ten classes)."""
        return self.steps * self.starts * (1 + 1 / 3)


def boundaries(problem: Problem, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances to the decision boundaries in logits, and their gradients.

    Returns:
        Logits n×K; gaps n×B, negative before the boundary and 0 on it; and their gradients n×B×C×H×W. B = 1 with a
        target (the class against all others) or loss targets (the class against the label), else K - 1.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = problem.model(images)
        if problem.targets is not None:
            gaps = problem.margins(logits)[:, None]
        elif problem.loss_targets is not None:
            gaps = logits.gather(1, problem.loss_targets[:, None]) - logits.gather(1, problem.labels[:, None])
        else:
            count = logits.shape[1]
            others = torch.arange(count, device=images.device).expand_as(logits)
            others = others[others != problem.labels[:, None]].view(len(logits), count - 1)
            gaps = logits.gather(1, others) - logits.gather(1, problem.labels[:, None])
        last = gaps.shape[1] - 1
        slopes = [gradient_of(gaps[:, number].sum(), images, retain=number < last) for number in range(last + 1)]
    stacked = torch.stack(slopes, 1)
    if problem.mask is not None:
        stacked = stacked * problem.mask[:, None]
    return logits.detach(), gaps.detach(), stacked


def nearest(gaps: Tensor, slopes: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The nearest of B linearised boundaries in the norm: its gap, n, and its gradient, n×C×H×W."""
    dual = slopes.flatten(2).abs().sum(2) if norm == "Linf" else slopes.flatten(2).norm(dim=2)
    best = (gaps.abs() / (dual + 1e-12)).argmin(1)
    rows = torch.arange(len(best), device=best.device)
    return gaps[rows, best], slopes[rows, best]


def to_plane(points: Tensor, slope: Tensor, offset: Tensor, norm: Norm) -> Tensor:
    """The smallest step, n×d, from each point to the plane slope·x = offset inside [0, 1]^d.

    If the box does not meet the plane, it is the step to the nearest corner. A step of length s moves each
    coordinate by min(s·unit, room), where unit is 1 in Linf and |slope| in L2, and room is the distance to the
    border of the box. The resulting gain along the slope is piecewise linear in s, so s follows from the sorted
    values of s at which coordinates reach the border.
    """
    dtype = points.dtype
    points, slope, offset = points.double(), slope.double(), offset.double()
    need = offset - (slope * points).sum(1)
    direction = slope.sign() * need.sign()[:, None]
    room = torch.where(direction > 0, 1 - points, points)
    weight = slope.abs()
    unit = torch.ones_like(weight) if norm == "Linf" else weight
    limit, order = (room / unit.clamp_min(1e-300)).sort(1)
    spent = (weight * room).gather(1, order).cumsum(1)
    rate = (weight * unit).gather(1, order)
    rate = rate.sum(1, keepdim=True) - rate.cumsum(1)  # of the coordinates that have not reached the border
    gain = spent + limit * rate.clamp_min(0)
    index = torch.searchsorted(gain, need.abs()[:, None])
    before = (index - 1).clamp_min(0)
    first = index == 0
    done = spent.gather(1, before).masked_fill(first, 0)
    pace = torch.where(first, (weight * unit).sum(1, keepdim=True), rate.gather(1, before))
    length = (need.abs()[:, None] - done) / pace.clamp_min(1e-300)
    length = torch.where(index == limit.shape[1], torch.inf, length)
    step = direction * torch.minimum(torch.nan_to_num(length * unit, nan=0.0), room)
    return step.to(dtype)
