"""Stripes: our interpretation of the "vertical perturbation" of Sahu et al. (2024), who do not define it.

x' = clip(x + eps·s[column // band], 0, 1) with s in {-1, +1}, as Square starts (Andriushchenko et al. 2020, 3.3).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import Norm
from medrobust.attacks.targets import Loss
from medrobust.core.params.base import Count
from medrobust.core.seeds import signs

Mode = Literal["random", "best_of", "flip", "whitebox"]


@dataclass(frozen=True, kw_only=True)
class Stripe(TargetableAttack):
    """Stripes of ±eps across the image, `band` pixels wide. Before clipping, the perturbation has Linf norm eps.

    `random` is one draw. `best_of` is the best of `queries` draws. `flip` flips one stripe after the other and
    keeps improvements, for `queries` queries. `whitebox` uses the signs of the gradient of `loss` summed over each
    stripe, in `steps` gradient evaluations.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    mode: Mode = "best_of"
    direction: Literal["vertical", "horizontal"] = "vertical"
    band: Count = 1
    queries: Count = 100
    steps: Count = 10
    loss: Loss = "margin"

    @property
    def cost(self) -> float:
        return {"random": 1 / 3, "whitebox": float(self.steps)}.get(self.mode, self.queries / 3)

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(problem.images)
        if self.mode == "whitebox":
            self._ascend(problem, best)
            return best.images
        for query, rows, part in best.rounds(problem, range(self.queries if self.mode == "best_of" else 1)):
            images = self._apply(part, self._draw(part, query))
            best.update(images, part.margins(part.logits(images)), rows)
        if self.mode == "flip":
            self._flip(problem, self._draw(problem, 0), best)
        return best.images

    def _draw(self, problem: Problem, stream: int) -> Tensor:
        """Random signs, n×bands."""
        extent = problem.images.shape[3 if self.direction == "vertical" else 2]
        return signs(problem.seeds, stream, (-(-extent // self.band),)).to(problem.images)

    def _apply(self, problem: Problem, stripes: Tensor) -> Tensor:
        """Images with stripes, n×bands."""
        height, width = problem.images.shape[2:]
        if self.direction == "vertical":
            wide = stripes.repeat_interleave(self.band, 1)[:, None, None, :width]
        else:
            wide = stripes.repeat_interleave(self.band, 1)[:, None, :height, None]
        return problem.project(problem.images + self.eps * wide)

    def _flip(self, problem: Problem, stripes: Tensor, best: BestImages) -> None:
        """Flip one stripe after the other, cyclically from the first one, and keep improvements."""
        for query, rows, part in best.rounds(problem, range(1, self.queries)):
            flipped = stripes[rows].clone()
            flipped[:, (query - 1) % flipped.shape[1]] *= -1
            images = self._apply(part, flipped)
            margins = part.margins(part.logits(images))
            better = margins > best.scores[rows]
            stripes[rows[better]] = flipped[better]
            best.update(images, margins, rows)

    def _ascend(self, problem: Problem, best: BestImages) -> None:
        """Use the signs of gradients that are summed over each stripe and over all steps so far."""
        total = torch.zeros_like(self._draw(problem, 0))
        stripes = torch.zeros_like(total)
        for step, rows, part in best.rounds(problem, range(self.steps + 1)):
            images = self._apply(part, stripes[rows])
            if step == self.steps:
                best.update(images, part.margins(part.logits(images)), rows)
                return
            logits, _, gradient = part.gradient(images, self.loss)
            if step:  # the first images have no stripes
                best.update(images, part.margins(logits), rows)
            total[rows] += self._per_band(gradient)
            stripes[rows] = torch.where(total[rows] < 0, -1.0, 1.0).to(total)

    def _per_band(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to each stripe's sign, n×bands, scaled to a maximum of 1."""
        line = gradient.sum((1, 2) if self.direction == "vertical" else (1, 3))
        padded = F.pad(line, (0, -line.shape[1] % self.band))
        bands: Tensor = padded.view(len(padded), -1, self.band).sum(2)
        return bands / bands.abs().amax(1, keepdim=True).clamp_min(1e-38)
