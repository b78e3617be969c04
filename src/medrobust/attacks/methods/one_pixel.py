"""One-pixel attack: differential evolution over position and value of a few pixels, by score queries."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import Norm
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count
from medrobust.core.seeds import uniform

#: Weight of the difference of two parents in a child (Su et al. 2019).
DIFFERENTIAL = 0.5


@dataclass(frozen=True, kw_only=True)
class OnePixel(TargetableAttack):
    """Change k pixels, each by at most eps (Su et al. 2019, section 3); the fitness is the margin.

    With eps 1, as published, pixels take any value. Each candidate of the `population` costs one query per
    generation. `allow_weak` accepts fewer than the published 400 candidates and 100 generations (after the first
    one).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    pixels: Count = 1
    # Each child is made from three parents.
    population: Annotated[int, Field(ge=4)] = 400
    generations: Count = 100
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.population < 400 or self.generations < 100) and not self.allow_weak:
            found = f"{self.population} candidates over {self.generations} generations"
            raise UserError("attack", found, "Use the published 400 over 100, or set allow_weak: true")

    @property
    def cost(self) -> float:
        return self.population * (self.generations + 1) / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        result = problem.images.clone()
        for row in range(len(result)):
            result[row] = self._evolve(problem.take(torch.tensor([row], device=result.device)))
        return result

    def _evolve(self, one: Problem) -> Tensor:
        """Attack one image; its candidates, population×pixels×(2 + C) in [0, 1], form the batch."""
        channels = one.images.shape[1]
        shape = (self.population, self.pixels, 2 + channels)
        genes = uniform(one.seeds, 0, shape)[0]
        copies = torch.zeros(self.population, dtype=torch.int64, device=one.labels.device)
        many = replace(one.take(copies), model=one.model)  # all evaluations count for this image
        best = BestImages(one.images)
        fitness = self._score(many, genes, best)
        for generation in range(1, self.generations + 1):
            if best.scores > 0:
                break
            # Three parents per child, drawn with replacement; genes outside [0, 1] are reflected.
            parents = (uniform(one.seeds, generation, (3, self.population))[0] * self.population).long()
            first, second, third = genes[parents]
            children = first + DIFFERENTIAL * (second - third)
            children = 1 - (1 - children.abs()).abs()
            scores = self._score(many, children, best)
            better = scores > fitness
            genes = torch.where(better[:, None, None], children, genes)
            fitness = torch.where(better, scores, fitness)
        return best.images[0]

    def _score(self, many: Problem, genes: Tensor, best: BestImages) -> Tensor:
        """Margins of all candidates; the best candidate updates `best`."""
        images = self._paint(many, genes)
        margins = many.margins(many.logits(images))
        top = margins.argmax()
        best.update(images[top][None], margins[top][None])
        return margins

    def _paint(self, many: Problem, genes: Tensor) -> Tensor:
        """The images of candidates. Their values are positions in the range that the ball and [0, 1] allow."""
        images = many.images.clone()
        _, _, height, width = images.shape
        down = (genes[..., 0] * height).long().clamp_max(height - 1)
        across = (genes[..., 1] * width).long().clamp_max(width - 1)
        low, high = (images - self.eps).clamp_min(0), (images + self.eps).clamp_max(1)
        each = torch.arange(len(images), device=images.device)
        for pixel in range(self.pixels):
            index = (each, slice(None), down[:, pixel], across[:, pixel])
            share = genes[:, pixel, 2:].to(images)
            images[index] = low[index] + share * (high[index] - low[index])
        return many.project(images)
