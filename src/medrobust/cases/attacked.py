"""The attacked versions of a few images, from the very attempts that an evaluation makes on them."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.streaming import AttemptResult
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.data.store import Subset


@dataclass(frozen=True)
class Version:
    """One attacked version of an image: the radius that it stands for, the attack, and the attack's result."""

    eps: float
    attack: str
    result: AttemptResult


@dataclass(frozen=True)
class AttackedImage:
    """What a suite does to one image, as its attack cell records it.

    `fooled_at` is the smallest radius that fools the model (0: wrong without an attack; None: none does), by
    `fooled_by` (`natural` at radius 0; None if none does). `versions` has at most one per radius, in rising order.
    """

    fooled_at: float | None
    fooled_by: str | None
    versions: list[Version] = field(default_factory=list)


def attack_again(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, train: Subset | None = None
) -> list[AttackedImage]:
    """Attack images as the suite's evaluation does, and keep the attacked versions; one entry per image.

    The random numbers of an image come from its id and `seed`, so the attempts are those of the evaluation of the
    whole test set. A radius that the evaluation left out (a larger one failed already, or the model is wrong
    without an attack) has no version: no change is scaled to another radius.
    """
    found: dict[int, list[tuple[str, AttemptResult]]] = {}

    def keep(attack: str, result: AttemptResult) -> None:
        found.setdefault(result.attempt.row, []).append((attack, result))

    attempts = attack_suite(model, subset, suite, seed=seed, train=train, watch=keep)
    worst = worst_case(attempts, suite["eps"])
    first = worst[worst["fooled"].to_numpy(dtype=bool)].drop_duplicates("id").set_index("id")
    images = []
    for row, name in enumerate(subset.ids):
        at, by = (
            (float(first.loc[name, "fooled_at"]), first.loc[name, "fooled_by"])
            if name in first.index
            else (None, None)
        )
        images.append(AttackedImage(at, by, _versions(found.get(row, []), suite["eps"])))
    return images


def _versions(results: list[tuple[str, AttemptResult]], radii: list[float]) -> list[Version]:
    """Per radius the success that uses most of it, else the attempt at this radius that came closest."""
    versions = []
    for eps in radii:
        limit = eps * (1 + TOLERANCE) + 1e-7
        hits = [pair for pair in results if pair[1].margin > 0 and pair[1].distance <= limit]
        tries = [pair for pair in results if pair[1].attempt.eps == eps and pair[1].distance <= limit]
        if hits:
            versions.append(Version(eps, *max(hits, key=lambda pair: pair[1].distance)))
        elif tries:
            versions.append(Version(eps, *max(tries, key=lambda pair: pair[1].margin)))
    return versions
