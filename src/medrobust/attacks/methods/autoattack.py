"""AutoAttack standard: an ensemble of four attacks without hyper-parameters to tune."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, focus, margin
from medrobust.attacks.methods.apgd import APGD, APGDT
from medrobust.attacks.methods.minimal import FABT
from medrobust.attacks.methods.square import Square
from medrobust.attacks.problem import BestImages
from medrobust.attacks.projection import Norm
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count

#: Budget of the published version. A smaller one needs `allow_weak`.
STEPS, QUERIES, TARGETS = 100, 5000, 9


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on the remaining images (Croce & Hein 2020).

    It works for two or more classes. Below four, the numerator of the targeted DLR loss replaces it. `steps` are
    those of the gradient attacks, per target. `allow_weak` accepts less than the published 100 steps, 5,000
    queries and nine targets. With `stop_when_fooled: false`, all four run on every image, each with all its steps
    (`Attack.to_the_end`).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    failure_covers_smaller_eps: ClassVar[bool] = True
    steps: Count = STEPS
    queries: Count = QUERIES
    targets: Count = TARGETS
    allow_weak: bool = False
    stop_when_fooled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        weak = self.steps < STEPS or self.queries < QUERIES or self.targets < TARGETS
        if weak and not self.allow_weak:
            found = f"{self.steps} steps, {self.queries} queries, {self.targets} targets is not AutoAttack"
            remedy = f"Use {STEPS}, {QUERIES} and {TARGETS}, or set allow_weak: true"
            raise UserError("attack", found, remedy)

    @property
    def cost(self) -> float:
        return sum(part.cost for part in self.parts() if part.cost != torch.inf)

    def parts(self) -> list[Attack]:
        """The four attacks, in the order of the reference."""
        eps, norm = self.eps, self.norm
        parts: list[Attack] = [
            APGD(eps=eps, norm=norm, steps=self.steps, loss="ce"),
            APGDT(eps=eps, norm=norm, steps=self.steps, loss="dlr", targets=self.targets),
            FABT(eps=eps, norm=norm, steps=self.steps, targets=self.targets, minimise=False),
            Square(eps=eps, norm=norm, queries=self.queries, rescale=False, p_init=0.8),
        ]
        return parts if self.stop_when_fooled else [part.to_the_end() for part in parts]

    def to_the_end(self) -> "AutoAttack":
        return replace(self, stop_when_fooled=False)

    def gradient_attacks(self) -> list[Attack]:
        return [attack for part in self.parts() for attack in part.gradient_attacks()]

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = BestImages(images)
        for number, part in enumerate(self.parts()):
            rows = torch.nonzero((best.scores <= 0) | (not self.stop_when_fooled)).squeeze(1)
            if not len(rows):
                break
            warm = start[rows] if number == 0 else None
            inner = focus(model, rows)
            result = part(inner, images[rows], labels[rows], seeds=seeds[rows], start=warm)
            with torch.no_grad():
                best.update(result, margin(inner(result), labels[rows]), rows)
        return best.images
