"""One image's way through a suite: which attack tries it next, at which radius, from where."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from medrobust.attacks.base import TOLERANCE, Attack
from medrobust.attacks.engine.streaming import Outcome, Task
from medrobust.attacks.state import Stepwise


@dataclass
class Course:
    """What is known of an image so far.

    Adversarial images nest: what fools in a ball fools in every larger one. So each attack begins at the largest
    radius in doubt and goes down as long as it succeeds, from the image that it has found, brought into the next
    ball. A failure takes the whole budget; an attack that has failed in a ball is not tried in the smaller ones
    inside, unless a failure there says nothing (`Attack.nests`). So an attack fails once an image.

    Where the first success lies decides how many radii are skipped. A random start lies on the rim of the ball
    already; a walk from the clean image is as long as it has to be. So the first attempt, where several radii
    are in doubt, is made from the clean image (`_seeks`), and who withstands it meets the random start as well.

    Attributes:
        row: position in the subset.
        radii: of the suite, rising.
        attacks: of the suite, in the order in which they run.
        fooled: position of the smallest radius at which the image is known to be fooled; len(radii) = none.
        found: C×H×W; what fooled it there.
        stage: position of the attack that is at work; len(attacks) = the image is done.
        rows: one record an attempt.
    """

    row: int
    radii: list[float]
    attacks: list[Attack]
    fooled: int
    found: Tensor | None = None
    stage: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    _restart: int = 0
    _place: Tensor | None = None
    _aim: int = 0
    _fresh: bool = True
    _sought: bool = False

    def __post_init__(self) -> None:
        self._aim = self.fooled - 1  # the radius to try next

    def next(self) -> Task | None:
        """What attack number `stage` is to do; None: the image is done."""
        if self.fooled == 0 or self.stage == len(self.attacks):
            return None
        attack = self.attacks[self.stage]
        warm = self._place is not None and self._restart == 0
        moves = attack.moves if isinstance(attack, Stepwise) else 0
        place, eps = self._place if warm else None, self.radii[self._aim]
        return Task(self.row, eps, self._restart, moves, place, plain=self._seeks)

    @property
    def _seeks(self) -> bool:
        """Whether the next attempt is the first that looks for the neighbourhood of the boundary."""
        attack = self.attacks[self.stage]
        return self._fresh and self._aim > 0 and isinstance(attack, Stepwise) and attack.drawn

    def take(self, name: str, outcome: Outcome) -> None:
        """Learn from an attempt of the attack `name`."""
        attack, fooled, sought = self.attacks[self.stage], outcome.margin > 0, self._seeks
        self._record(name, outcome, fooled)
        self._fresh = self._fresh and attack.bound and not attack.nests
        self._sought = sought and not fooled
        if fooled:
            self.found, self._place, self._restart = outcome.found, outcome.found, 0
            limits = np.asarray(self.radii) * (1 + TOLERANCE) + 1e-7
            self.fooled = min(self._aim, int(np.searchsorted(limits, outcome.distance)))
            self._aim = self.fooled - 1
            # An unbound attack seeks the nearest adversarial image, whatever the radius is.
            if not attack.bound or self.fooled == 0:
                self._turn()
        elif sought:
            pass  # the same again, from a random start
        elif isinstance(attack, Stepwise) and self._restart + 1 < attack.restarts:
            self._restart += 1
        elif attack.bound and not attack.nests and self._aim > 0:
            self._aim, self._restart, self._place = self._aim - 1, 0, None
        else:
            self._turn()

    def _turn(self) -> None:
        """On to the next attack, which starts afresh."""
        self.stage, self._restart, self._place, self._aim = self.stage + 1, 0, None, self.fooled - 1

    def _record(self, name: str, outcome: Outcome, fooled: bool) -> None:
        """One row an attack and radius; its starts add up."""
        row = {
            "attack": name, "eps": outcome.task.eps, "fooled": fooled, "pred": outcome.pred,
            "margin": outcome.margin, "distance": outcome.distance, "saturation": outcome.saturation,
            "displacement": outcome.displacement,
        }  # fmt: skip
        spent = {"steps": outcome.steps, "gradients": outcome.gradients, "queries": outcome.queries}
        if self._restart or self._sought:
            last = self.rows.pop()
            spent = {key: value + last[key] for key, value in spent.items()}
            row = row if row["margin"] > last["margin"] else last
        self.rows.append(row | spent)
