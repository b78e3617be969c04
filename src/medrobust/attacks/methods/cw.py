"""Carlini & Wagner's L2 attack with a binary search over the weight of the margin."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import distance, per_image
from medrobust.core.params.base import Count, NotNegative, Positive

#: Keeps arctanh finite for pixels that are exactly 0 or 1, so that they can move.
INSIDE = 0.999999


@dataclass(frozen=True, kw_only=True)
class CW(TargetableAttack):
    """The smallest L2 change that fools the model (Carlini & Wagner 2017).

    Minimises |x' - x|² + c·max(kappa - margin, 0), whatever the suite's norm is. A binary search of `searches`
    steps starts from the weight `c`; each runs `steps` of Adam, with learning rate `lr` in arctanh space. `kappa`
    is in logits.
    """

    respects_ball: ClassVar[bool] = False
    c: Positive = 1e-2
    searches: Count = 9
    kappa: NotNegative = 0.0
    steps: Count = 100
    lr: Positive = 0.01

    @property
    def cost(self) -> float:
        return self.searches * self.steps

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        count = len(problem.images)
        best = BestImages(problem.images)  # the score is minus the distance
        low, high = problem.images.new_zeros(count), problem.images.new_full((count,), torch.inf)
        weight = torch.full_like(low, self.c)
        for _ in range(self.searches):
            found = self._descend(problem, weight)
            best.update(found.images, found.scores)
            fooled = torch.isfinite(found.scores)
            high = torch.where(fooled, torch.minimum(high, weight), high)
            low = torch.where(fooled, low, torch.maximum(low, weight))
            weight = torch.where(torch.isfinite(high), (low + high) / 2, weight * 10)
        return best.images

    def _descend(self, problem: Problem, weight: Tensor) -> BestImages:
        """Run Adam with one weight per image; return the nearest images that fool."""
        images = problem.images
        variables = torch.atanh((2 * images - 1) * INSIDE)
        mean, square = torch.zeros_like(variables), torch.zeros_like(variables)
        best = BestImages(images)
        for step in range(1, self.steps + 1):
            squashed = variables.tanh()
            current = problem.apply_mask((squashed + 1) / 2)
            logits, _, slope = problem.gradient(current, self._hinge)
            length = distance(current, images, "L2")
            beyond = problem.reached(logits) & (problem.margins(logits) >= self.kappa)
            best.update(current, torch.where(beyond, -length, torch.nan))
            by_pixel = 2 * (current - images) + per_image(weight) * slope
            gradient = by_pixel * (1 - squashed.square()) / 2
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient.square()
            rate = self.lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            variables = variables - rate * mean / (square.sqrt() + 1e-8)
        return best

    def _hinge(self, logits: Tensor, problem: Problem) -> Tensor:
        """Shortfall of the margin from kappa, n; zero beyond it."""
        return (self.kappa - problem.margins(logits)).clamp_min(0)
