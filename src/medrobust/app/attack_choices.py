"""The attacks that the page offers: those of the registry that answer while somebody waits."""

from dataclasses import dataclass
from functools import cache

from medrobust.attacks.base import Attack
from medrobust.attacks.lookup import load_attack
from medrobust.attacks.projection import Norm
from medrobust.attacks.registry import ATTACKS
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import build

#: Most gradient evaluations per image (`Attack.cost`) of an attack that is offered. Ten take a third of a second
#: with ResNet-34 at 48 pixels on one core.
BUDGET = 20
#: The attack that is chosen at the start.
FIRST = "pgd (Linf)"
#: Largest radius and step of the slider, in [0, 1] pixel units.
RANGES: dict[Norm, tuple[float, float]] = {"Linf": (0.05, 0.001), "L2": (3.0, 0.05)}


@dataclass(frozen=True)
class AttackChoice:
    """An attack with the hyper-parameters of its class, in one norm.

    `summary` is the first sentence of its docstring.
    """

    name: str
    norm: Norm
    kind: type[Attack]

    @property
    def label(self) -> str:
        return f"{self.name} ({self.norm})"

    @property
    def summary(self) -> str:
        return " ".join((self.kind.__doc__ or "").partition("\n\n")[0].split())

    def at(self, eps: float) -> Attack:
        """The attack at a radius, with all its steps: its first success would just cross the decision border."""
        return build(self.kind, {}, f"attack.{self.name}", eps=eps, norm=self.norm).to_the_end()


@cache
def attack_choices() -> dict[str, AttackChoice]:
    """The choices by label, in the order of the registry.

    Left out are attacks that need more than an image (training images, a surrogate model, the name of another
    library's attack) and those whose cost is above `BUDGET` or unknown.
    """
    found = {}
    for name in ATTACKS:
        kind = load_attack(name)
        if kind.with_training is not Attack.with_training:
            continue
        for norm in (norm for norm in kind.norms if norm in RANGES):
            choice = AttackChoice(name, norm, kind)
            try:
                cost = choice.at(RANGES[norm][0]).cost
            except UserError:  # a hyper-parameter has no default
                continue
            if cost <= BUDGET:
                found[choice.label] = choice
    return found
