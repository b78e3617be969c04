"""Carlini & Wagner's L2 attack with a binary search over the weight of the margin."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.problem import Problem, TargetableAttack
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
        result = problem.images.clone()
        nearest = result.new_full((count,), torch.inf)
        low, high = result.new_zeros(count), result.new_full((count,), torch.inf)
        weight = result.new_full((count,), self.c)
        for _ in range(self.searches):
            images, length = self._descend(problem, weight)
            nearer = length < nearest
            result[nearer], nearest[nearer] = images[nearer], length[nearer]
            fooled = torch.isfinite(length)
            high = torch.where(fooled, torch.minimum(high, weight), high)
            low = torch.where(fooled, low, torch.maximum(low, weight))
            weight = torch.where(torch.isfinite(high), (low + high) / 2, weight * 10)
        return result

    def _descend(self, problem: Problem, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Run Adam with one weight per image; return the nearest images that fool and their L2 distances."""
        images = problem.images
        variables = torch.atanh((2 * images - 1) * INSIDE)
        mean, square = torch.zeros_like(variables), torch.zeros_like(variables)
        result, nearest = images.clone(), images.new_full((len(images),), torch.inf)
        for step in range(1, self.steps + 1):
            squashed = variables.tanh()
            current = problem.apply_mask((squashed + 1) / 2)
            logits, _, slope = problem.gradient(current, self._hinge)
            length = distance(current, images, "L2")
            beyond = problem.reached(logits) & (problem.margins(logits) >= self.kappa)
            nearer = beyond & (length < nearest)
            result[nearer], nearest[nearer] = current[nearer], length[nearer]
            by_pixel = 2 * (current - images) + per_image(weight) * slope
            gradient = by_pixel * (1 - squashed.square()) / 2
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient.square()
            rate = self.lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            variables = variables - rate * mean / (square.sqrt() + 1e-8)
        return result, nearest

    def _hinge(self, logits: Tensor, problem: Problem, images: Tensor) -> Tensor:
        """Shortfall of the margin from kappa, n; zero beyond it."""
        return (self.kappa - problem.margins(logits)).clamp_min(0)
