"""One image's way through a suite: which attack tries it next, at which radius, from where."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from medrobust.attacks.base import TOLERANCE, Attack
from medrobust.attacks.pool import Outcome, Task
from medrobust.attacks.walk import Stepwise


@dataclass
class Course:
    """What is known of an image so far.

    Adversarial images nest: what fools in a ball fools in every larger one. So a success leaves only smaller radii
    in doubt. An attack that spent its whole budget in a ball in vain is not tried in the smaller balls inside it;
    among the radii that remain the middle one comes next, so that an attack needs about log2 of their number.

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
    _failed: int = -1
    _restart: int = 0
    _place: Tensor | None = None

    def next(self) -> Task | None:
        """What attack number `stage` is to do; None: the image is done."""
        while self.stage < len(self.attacks):
            if self.fooled - self._failed > 1:
                return self._task(self.attacks[self.stage])
            self._turn()
        return None

    def take(self, name: str, outcome: Outcome) -> None:
        """Learn from an attempt of the attack `name`."""
        attack, fooled = self.attacks[self.stage], outcome.margin > 0
        self._record(name, outcome, fooled)
        if fooled:
            self.found, self._place = outcome.found, outcome.found
            limits = np.asarray(self.radii) * (1 + TOLERANCE) + 1e-7
            self.fooled = min(self.fooled, int(np.searchsorted(limits, outcome.distance)))
        elif isinstance(attack, Stepwise) and self._restart + 1 < attack.restarts:
            self._restart += 1
            return
        else:
            self._failed, self._place = self.radii.index(outcome.task.eps), outcome.found
        self._restart = 0
        if not attack.bound:  # it seeks the nearest adversarial image whatever the radius is
            self._turn()

    def _task(self, attack: Attack) -> Task:
        number = (self._failed + self.fooled) // 2 if self.stage == 0 else self.fooled - 1
        warm = self._place is not None and self._restart == 0 and attack.bound
        moves = 0
        if isinstance(attack, Stepwise):
            moves = attack.warm_moves if warm else attack.moves
        return Task(self.row, self.radii[number], self._restart, moves, self._place if warm else None)

    def _turn(self) -> None:
        """On to the next attack, which starts afresh."""
        self.stage, self._failed, self._restart, self._place = self.stage + 1, -1, 0, None

    def _record(self, name: str, outcome: Outcome, fooled: bool) -> None:
        """One row an attack and radius; restarts add up."""
        row = {
            "attack": name, "eps": outcome.task.eps, "fooled": fooled, "pred": outcome.pred,
            "margin": outcome.margin, "distance": outcome.distance, "saturation": outcome.saturation,
            "displacement": outcome.displacement,
        }  # fmt: skip
        spent = {"steps": outcome.steps, "gradients": outcome.gradients, "queries": outcome.queries}
        if self._restart:
            last = self.rows.pop()
            spent = {key: value + last[key] for key, value in spent.items()}
            row = row if row["margin"] > last["margin"] else last
        self.rows.append(row | spent)
