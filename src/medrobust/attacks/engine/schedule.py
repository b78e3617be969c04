"""The schedule of one image: which attack tries it next, at which radius, from which start."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.streaming import Attempt, AttemptResult
from medrobust.attacks.state import IterativeAttack
from medrobust.attacks.tolerance import TOLERANCE


@dataclass
class ImageSchedule:
    """The attempts on an image so far, and what follows from them.

    Each attack begins at the largest undecided radius and continues with smaller ones while it succeeds, from the
    image that it found. After a failure it is not tried at smaller radii, unless the failure says nothing about
    them (`Attack.failure_covers_smaller_eps`). If several radii are undecided, the first attempt starts from the
    clean image, because steps from there lead only as far as necessary. If it fails, a random start follows.

    `radii` rise, and `attacks` are in the order in which they run. `fooled` is the index of the smallest radius at
    which the image is known to be fooled, by `adversarial`, C×H×W; len(radii) = none. `attack_index` is that of
    the attack that runs next; len(attacks) = the image is done. `records` has one per attack and radius.
    """

    row: int
    radii: list[float]
    attacks: list[Attack]
    fooled: int
    adversarial: Tensor | None = None
    attack_index: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    _restart: int = 0
    _start: Tensor | None = None
    _next_radius: int = 0
    _is_first: bool = True
    _repeats_from_clean: bool = False

    def __post_init__(self) -> None:
        self._next_radius = self.fooled - 1  # index of the radius to try next

    def next_attempt(self) -> Attempt | None:
        """The next attempt of attack number `attack_index`; None = the image is done."""
        if self.fooled == 0 or self.attack_index == len(self.attacks):
            return None
        start, eps = self._start if self._restart == 0 else None, self.radii[self._next_radius]
        return Attempt(self.row, eps, self._restart, start, from_clean=self._from_clean)

    @property
    def _from_clean(self) -> bool:
        """Whether the next attempt is the first one and has to start from the clean image."""
        attack = self.attacks[self.attack_index]
        random = isinstance(attack, IterativeAttack) and attack.has_random_start
        return self._is_first and self._next_radius > 0 and random

    def record_result(self, name: str, result: AttemptResult) -> None:
        """Record an attempt of the attack `name` and decide what follows."""
        attack, fooled, from_clean = self.attacks[self.attack_index], result.margin > 0, self._from_clean
        self._add_record(name, result, fooled)
        one_by_one = attack.respects_ball and not attack.failure_covers_smaller_eps
        self._is_first = self._is_first and one_by_one
        self._repeats_from_clean = from_clean and not fooled
        if fooled:
            self.adversarial, self._start, self._restart = result.image, result.image, 0
            limits = np.asarray(self.radii) * (1 + TOLERANCE) + 1e-7
            self.fooled = min(self._next_radius, int(np.searchsorted(limits, result.distance)))
            self._next_radius = self.fooled - 1
            # An attack without a ball looks for the nearest adversarial image, whatever the radius is.
            if not attack.respects_ball or self.fooled == 0:
                self._next_attack()
        elif from_clean:
            pass  # repeat the attempt from a random start
        elif isinstance(attack, IterativeAttack) and self._restart + 1 < attack.starts:
            self._restart += 1
        elif one_by_one and self._next_radius > 0:
            self._next_radius, self._restart, self._start = self._next_radius - 1, 0, None
        else:
            self._next_attack()

    def _next_attack(self) -> None:
        self.attack_index, self._restart, self._start = self.attack_index + 1, 0, None
        self._next_radius = self.fooled - 1

    def _add_record(self, name: str, result: AttemptResult, fooled: bool) -> None:
        """Add a record per attack and radius; the costs of its restarts add up."""
        row = {
            "attack": name, "eps": result.attempt.eps, "fooled": fooled, "pred": result.pred,
            "margin": result.margin, "distance": result.distance, "saturation": result.saturation,
            "displacement": result.displacement,
        }  # fmt: skip
        spent = {"steps": result.steps, "gradients": result.gradients, "queries": result.queries}
        if self._restart or self._repeats_from_clean:
            last = self.records.pop()
            spent = {key: value + last[key] for key, value in spent.items()}
            row = row if row["margin"] > last["margin"] else last
        self.records.append(row | spent)
