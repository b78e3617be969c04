"""One-pixel attack: differential evolution over the place and the value of a few pixels; scores only."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.base import Norm
from medrobust.attacks.problem import Best, GoalAttack, Problem
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import Count
from medrobust.core.seeds import uniform

#: Weight of the difference in a child (differential evolution; Su et al. 2019).
DIFFERENTIAL = 0.5


@dataclass(frozen=True, kw_only=True)
class OnePixel(GoalAttack):
    """Change k pixels, each within eps of what it was (Su et al. 2019, section 3); fitness is the margin.

    The published attack sets a pixel to any value: a suite with eps 1. A smaller eps keeps the pixels' change
    inside the Linf ball as well.

    Attributes:
        pixels: that may change.
        population: candidates of a generation; each asks one query.
        generations: after the first.
        allow_weak: accept fewer than the published 400 candidates and 100 generations.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    pixels: Count = 1
    # A child has three parents.
    population: Annotated[int, Field(ge=4)] = 400
    generations: Count = 100
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.population < 400 or self.generations < 100) and not self.allow_weak:
            found = f"{self.population} candidates over {self.generations} generations"
            raise UserError("attack", found, "The published budget is 400 over 100; or say allow_weak: true")

    @property
    def cost(self) -> float:
        """A query takes a third of a gradient."""
        return self.population * (self.generations + 1) / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The best candidate of all generations."""
        result = problem.images.clone()
        for row in range(len(result)):
            result[row] = self._evolve(problem.take(torch.tensor([row], device=result.device)))
        return result

    def _evolve(self, one: Problem) -> Tensor:
        """Attack one image; its candidates, population×pixels×(2 + C) in [0, 1], are the batch."""
        channels = one.images.shape[1]
        shape = (self.population, self.pixels, 2 + channels)
        genes = uniform(one.seeds, 0, shape)[0]
        many = one.copies(self.population)
        best = Best(one.images)
        fitness = self._score(many, genes, best)
        for generation in range(1, self.generations + 1):
            if best.reached:
                break
            # Three parents each, drawn with replacement; genes that leave [0, 1] are folded back.
            parents = (uniform(one.seeds, generation, (3, self.population))[0] * self.population).long()
            first, second, third = genes[parents]
            children = first + DIFFERENTIAL * (second - third)
            children = 1 - (1 - children.abs()).abs()
            scores = self._score(many, children, best)
            better = scores > fitness
            genes = torch.where(better[:, None, None], children, genes)
            fitness = torch.where(better, scores, fitness)
        return best.images[0]

    def _score(self, many: Problem, genes: Tensor, best: Best) -> Tensor:
        """Margins of all candidates; the best of them is noted."""
        images = self._paint(many, genes)
        margins, reached = many.judge(images)
        top = torch.where(reached, torch.inf, margins).argmax()
        row = torch.zeros(1, dtype=torch.int64, device=margins.device)
        best.see(row, images[top][None], margins[top][None], reached[top][None])
        return margins

    def _paint(self, many: Problem, genes: Tensor) -> Tensor:
        """The images that candidates stand for; values are shares of what the ball and [0, 1] allow."""
        images = many.images.clone()
        _, _, height, width = images.shape
        down = (genes[..., 0] * height).long().clamp_max(height - 1)
        across = (genes[..., 1] * width).long().clamp_max(width - 1)
        low, high = (images - self.eps).clamp_min(0), (images + self.eps).clamp_max(1)
        each = torch.arange(len(images), device=images.device)
        for pixel in range(self.pixels):
            place = (each, slice(None), down[:, pixel], across[:, pixel])
            share = genes[:, pixel, 2:].to(images)
            images[place] = low[place] + share * (high[place] - low[place])
        return many.project(images)
