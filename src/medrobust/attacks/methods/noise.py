"""Random noise: the control that every attack must beat."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.core.params.base import Count
from medrobust.core.seeds import signs


@dataclass(frozen=True, kw_only=True)
class Noise(TargetableAttack):
    """The worst of several random images in the ball (a control after Carlini et al. 2019); each draw is a query.

    Draws are `uniform` in the ball's volume, or `corners`: every pixel at -eps or +eps (L2: a unit vector of
    signs, scaled to eps).
    """

    draws: Count = 100
    kind: Literal["uniform", "corners"] = "uniform"

    @property
    def cost(self) -> float:
        return self.draws / 3

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(problem.images)
        for draw, rows, part in best.rounds(problem, range(self.draws)):
            images = part.noise(draw) if self.kind == "uniform" else self._corner(part, draw)
            best.update(images, part.margins(part.logits(images)), rows)
        return best.images

    def _corner(self, part: Problem, draw: int) -> Tensor:
        shift = signs(part.seeds, draw, tuple(part.images.shape[1:])).to(part.images)
        scale = 1.0 if self.norm == "Linf" else part.images[0].numel() ** -0.5
        return part.project(part.images + self.eps * scale * shift)
