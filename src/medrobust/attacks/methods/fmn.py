"""FMN: the smallest change by gradient steps in a ball that grows and shrinks (Pintor et al. 2021)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import ascent, distance, per_image, project
from medrobust.core.params.base import Count, Positive
from medrobust.core.params.hyperparameters import Part

#: Smallest relative change of the ball's radius, in the last step (as in the authors' code).
LAST_GAMMA = 0.001
#: Last step size as a share of the first one (as in the authors' code).
LAST_ALPHA = 0.01


@dataclass(frozen=True, kw_only=True)
class FMN(TargetableAttack):
    """Fast minimum-norm attack (Pintor et al. 2021, algorithm 1), in Linf or L2.

    Each step follows the gradient of the margin and is projected onto a ball around the clean image. Until the
    image is fooled, the ball reaches beyond the linearised boundary by the share `gamma`. (In the paper it ends
    there, so that iterates may approach the boundary forever.) From then on it shrinks by this share while the
    iterate fools the model, and grows by it while it does not. `alpha` is the L2 length of the first step. Cosine
    schedules lower `gamma` to `LAST_GAMMA` and `alpha` to its share `LAST_ALPHA`.

    The radius of the suite is not used, so one run serves every radius. `steps` are gradient evaluations; a query
    evaluates the last iterate.
    """

    respects_ball: ClassVar[bool] = False
    steps: Count = 100
    alpha: Positive = 1.0
    gamma: Part = 0.05

    @property
    def cost(self) -> float:
        return self.steps + 1 / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(problem.images)  # the score is minus the distance
        rows, part, current = torch.arange(len(start), device=start.device), problem, problem.images
        radius = torch.full_like(best.scores, torch.inf)
        for step in range(self.steps):
            logits, gaps, slopes = part.gradient(current, "margin")
            length, fooled = self._offer(part, current, logits, best, rows)
            found = best.scores[rows]
            order = 1 if self.norm == "Linf" else 2
            slope = torch.linalg.vector_norm(slopes.flatten(1), order, dim=1).clamp_min(1e-12)
            gamma = _cosine(self.gamma, min(LAST_GAMMA, self.gamma), step / self.steps)
            ahead = (1 + gamma) * torch.where(found.isneginf(), length + gaps.abs() / slope, radius[rows])
            radius[rows] = torch.where(fooled, torch.minimum((1 - gamma) * radius[rows], -found), ahead)
            size = _cosine(self.alpha, LAST_ALPHA * self.alpha, step / self.steps)
            ball = per_image(radius[rows])
            current = project(current + size * ascent(slopes, "L2"), part.images, ball, self.norm)
            on = found != 0  # an image that is wrong without a change is done
            rows, part, current = rows[on], part.take(on), current[on]
            if not len(rows):
                return best.images
        self._offer(part, current, part.logits(current), best, rows)
        return best.images

    def _offer(
        self, part: Problem, current: Tensor, logits: Tensor, best: BestImages, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Offer the iterates that fool to `best`; return all distances, n, and which fool, bool n."""
        length, fooled = distance(current, part.images, self.norm), part.reached(logits)
        best.update(current, torch.where(fooled, -length, torch.nan), rows)
        return length, fooled


def _cosine(first: float, last: float, share: float) -> float:
    """The value of a cosine schedule after a share of the steps."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
