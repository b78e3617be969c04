"""AutoAttack standard: four attacks that fail in different ways, none with a knob to get wrong."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Norm, focus, margin
from medrobust.attacks.methods.apgd import APGD, APGDT
from medrobust.attacks.methods.minimal import FABT
from medrobust.attacks.methods.square import Square
from medrobust.attacks.methods.square_l2 import SquareL2
from medrobust.attacks.problem import Best
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import Count

#: What the published version runs; less may not bear its name.
STEPS, QUERIES, TARGETS = 100, 5000, 9


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on who is left (Croce & Hein 2020, section 5).

    For every number of classes from two on: the targets are the wrong classes, nine at most, and where the
    targeted DLR loss is undefined (below four classes) its numerator, the margin, takes its place.

    Attributes:
        steps: of the gradient attacks, a target.
        queries: of Square.
        targets: wrong classes that APGD-T and FAB-T try, likeliest first.
        allow_weak: accept less than the published 100 steps, 5,000 queries and nine targets.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    nests: ClassVar[bool] = True
    steps: Count = STEPS
    queries: Count = QUERIES
    targets: Count = TARGETS
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        weak = self.steps < STEPS or self.queries < QUERIES or self.targets < TARGETS
        if weak and not self.allow_weak:
            found = f"{self.steps} steps, {self.queries} queries, {self.targets} targets is not AutoAttack"
            raise UserError("attack", found, f"It takes {STEPS}, {QUERIES} and {TARGETS}; or say allow_weak: true")

    @property
    def cost(self) -> float:
        """The sum of the parts'."""
        return sum(part.cost for part in self.parts() if part.cost != torch.inf)

    def parts(self) -> list[Attack]:
        """The four attacks, in the order of the reference."""
        eps, norm = self.eps, self.norm
        square: type[Square] | type[SquareL2] = Square if norm == "Linf" else SquareL2
        return [
            APGD(eps=eps, norm=norm, steps=self.steps, loss="ce"),
            APGDT(eps=eps, norm=norm, steps=self.steps, loss="dlr", targets=self.targets),
            FABT(eps=eps, norm=norm, steps=self.steps, targets=self.targets, minimise=False),
            square(eps=eps, norm=norm, queries=self.queries, rescale=False, p_init=0.8),
        ]

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        best = Best(images)
        for number, part in enumerate(self.parts()):
            left = best.left()
            if not len(left):
                break
            warm = start[left] if number == 0 else None
            inner = focus(model, left)
            found = part(inner, images[left], labels[left], seeds=seeds[left], start=warm)
            with torch.no_grad():
                logits = inner(found)
            best.see(left, found, margin(logits, labels[left]), logits.argmax(1) != labels[left])
        return best.images
