"""RayS: an attack that sees only the predicted class (Chen & Gu 2020)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.problem import Problem, TargetableAttack
from medrobust.attacks.projection import ascent, per_image
from medrobust.core.params.base import Count
from medrobust.core.seeds import signs


@dataclass(frozen=True, kw_only=True)
class RayS(TargetableAttack):
    """Search for the direction of ±1 per pixel in which the prediction changes at the smallest radius.

    Blocks of pixels change their sign, from the whole image to ever smaller blocks (algorithm 3 of the paper). A
    change is kept if the prediction is wrong at the best radius so far. A bisection of `halvings` steps between 0
    and this radius then finds the new one. An image stops once its radius is inside the ball. In L2 each direction
    is scaled to length 1. `queries` is the largest number of predictions per image.
    """

    failure_covers_smaller_eps: ClassVar[bool] = True
    queries: Count = 1000
    halvings: Count = 8

    @property
    def cost(self) -> float:
        return self.queries / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        result = problem.images.clone()
        rows = torch.arange(len(result), device=result.device)
        ray = _Rays(problem, signs(problem.seeds, 0, (1, 1, 1)).to(result).expand_as(result))
        left = torch.full_like(rows, self.queries)
        for block in _blocks(result[0]):
            candidates = torch.where(block, -ray.signs, ray.signs)
            left -= 1 + self.halvings * ray.improve(candidates, self.halvings).long()
            near = ray.radius <= self.eps
            result[rows[near]] = ray.images(ray.signs, ray.radius)[near]
            on = ~near & (left > self.halvings)
            if not on.any():
                break
            rows, left, ray = rows[on], left[on], ray.take(on)
        return result


class _Rays:
    """The best direction per image (±1, n×C×H×W), and the radius at which it changes the prediction, n.

    The radius is infinite until a direction has changed the prediction.
    """

    def __init__(self, problem: Problem, signs: Tensor, radius: Tensor | None = None) -> None:
        self.problem, self.signs = problem, signs
        self.radius = signs.new_full((len(signs),), torch.inf) if radius is None else radius

    def take(self, rows: Tensor) -> "_Rays":
        return _Rays(self.problem.take(rows), self.signs[rows], self.radius[rows])

    def images(self, signs: Tensor, radius: Tensor) -> Tensor:
        """Images at a radius along directions, inside the mask and [0, 1]."""
        direction = signs if self.problem.norm == "Linf" else ascent(signs, "L2")
        return self.problem.apply_mask((self.problem.images + per_image(radius) * direction).clamp(0, 1))

    def improve(self, candidates: Tensor, halvings: int) -> Tensor:
        """Keep the candidates that change the prediction at a smaller radius; return which do, bool n."""
        farthest = 1.0 if self.problem.norm == "Linf" else self.signs[0].numel() ** 0.5
        high = self.radius.clamp_max(farthest)
        better = self.problem.reached(self.problem.logits(self.images(candidates, high)))
        # Until a direction succeeds, each change is kept, so that the search goes on to new directions.
        lost = per_image(self.radius.isinf())
        self.signs = torch.where(lost, candidates, self.signs)
        if better.any():
            part = _Rays(self.problem.take(better), candidates[better])
            self.radius[better] = part._shrink(high[better], halvings)
            self.signs = torch.where(per_image(better), candidates, self.signs)
        return better

    def _shrink(self, high: Tensor, halvings: int) -> Tensor:
        """The smallest radius found between 0 and `high`, at which the prediction has changed."""
        low = torch.zeros_like(high)
        for _ in range(halvings):
            middle = (low + high) / 2
            changed = self.problem.reached(self.problem.logits(self.images(self.signs, middle)))
            low, high = torch.where(changed, low, middle), torch.where(changed, middle, high)
        return high


def _blocks(image: Tensor) -> Iterator[Tensor]:
    """Bool masks of the shape of an image: none of the values, all, the halves, the quarters ... each value."""
    values = image.numel()
    index = torch.arange(values, device=image.device)
    yield torch.zeros_like(image, dtype=torch.bool)
    count = 1
    while True:
        block = index * count // values
        for number in range(count):
            yield (block == number).view_as(image)
        count = min(2 * count, values)
