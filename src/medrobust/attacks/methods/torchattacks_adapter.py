"""Any attack of the torchattacks library, by the name of its class, behind this project's contract.

Each image is attacked by itself, under its own seed, in a copy of the global random states. So its result does not
depend on the other images of its batch. Those of the library do: it draws for the whole batch, and its CW stops by
the sum of the batch's losses. One image at a time is slow. The adapter serves as a second opinion beside this
project's own attacks, and gives access to methods that it does not have.

Other faults of torchattacks 3.5.1 that are handled here: attacks reseed the global random state; they put the
model into train mode; step sizes have a fixed default that does not reach larger radii; three attacks take colour
images only; JSMA expects ten classes; CW cannot move a pixel that is exactly 0 or 1, where its arctanh is
infinite; DeepFool returns NaN where the gradient vanishes.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Norm, check_alpha, focus, project
from medrobust.core.errors import UserError

#: Attacks that take no radius, or look for the smallest change: results count where they lie inside the ball.
WITHOUT_BALL = ("CW", "DeepFool", "EADEN", "EADL1", "FAB", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool")
#: Every attack that can be named and the norms of the suites that it serves.
NORMS: dict[str, tuple[Norm, ...]] = {
    **dict.fromkeys(WITHOUT_BALL, ("Linf", "L2")),
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "Square"), ("Linf", "L2")),
    **dict.fromkeys(("PGDL2", "PGDRSL2"), ("L2",)),
    **dict.fromkeys(
        (
            "BIM", "DIFGSM", "EOTPGD", "FFGSM", "FGSM", "Jitter", "MIFGSM", "NIFGSM", "PGD", "PGDRS", "PIFGSM",
            "PIFGSMPP", "RFGSM", "SINIFGSM", "SPSA", "TIFGSM", "TPGD", "UPGD", "VMIFGSM", "VNIFGSM",
        ),
        ("Linf",),
    ),
}  # fmt: skip
ONE_STEP = ("FFGSM", "FGSM")
#: Attacks whose kernels have three channels. Grey images are attacked as the mean of three equal channels.
COLOUR_ONLY = ("PIFGSM", "PIFGSMPP", "TIFGSM")
#: Keywords of constructors that the adapter fills in itself.
FILLED_IN = {"self", "model", "eps", "max_epsilon", "norm", "seed", "n_classes", "verbose"}
#: Keywords with an integer default that take any number.
REAL = {"c", "kappa", "lam", "nsig", "scale"}


@dataclass(frozen=True, kw_only=True, init=False)
class Torchattacks(Attack):
    """One attack of torchattacks, one image at a time.

    Besides the attributes below it takes every keyword of the named class, with the class's default. Only `alpha`
    has another default: 2.5·eps/steps, and 1.25·eps for an attack without `steps`.

    Attributes:
        attack: name of the class, a key of `NORMS`.
        allow_weak: accept alpha·steps < eps.
        keywords: those of the named class that are set.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    attack: str = ""
    allow_weak: bool = False
    keywords: dict[str, Any] = field(default_factory=dict, repr=False)

    def __init__(
        self, *, eps: float, norm: Norm = "Linf", attack: str = "", allow_weak: bool = False,
        keywords: dict[str, Any] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        values = {"eps": eps, "norm": norm, "attack": attack, "allow_weak": allow_weak}
        for name, value in {**values, "keywords": {**(keywords or {}), **more}}.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack not in NORMS:
            found = f"torchattacks has no attack {self.attack!r} that can be used here"
            raise UserError("attack.attack", found, f"Known: {', '.join(sorted(NORMS))}")
        if self.norm not in NORMS[self.attack]:
            found = f"{self.attack} serves {NORMS[self.attack][0]}, the suite is {self.norm}"
            known = sorted(name for name, norms in NORMS.items() if self.norm in norms)
            raise UserError("attack.attack", found, f"For {self.norm}: {', '.join(known)}")
        for key, value in self.keywords.items():
            self._check(key, value)
        if "alpha" in self.keywords and self.steps:
            check_alpha(self.keywords["alpha"], self.steps, self.eps, self.allow_weak)

    def _check(self, key: str, value: Any) -> None:
        """Refuse a keyword that the class does not have, or a value of another type than its default."""
        known = {name: value for name, value in defaults(self.attack).items() if name not in FILLED_IN}
        if key not in known:
            names = ", ".join(["attack", "allow_weak", *known])
            raise UserError(f"attack.{key}", "unknown hyper-parameter", f"Known: {names}")
        default = known[key]
        kinds: tuple[type, ...] = (type(default),)
        if isinstance(default, float) or key in REAL:
            kinds = (int, float)
        elif isinstance(default, tuple):
            kinds = (list, tuple)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise UserError(f"attack.{key}", f"got {value!r}", f"Give a value like the default {default!r}")

    @property
    def steps(self) -> int:
        """Steps of the attack; 0 for one without this keyword."""
        return int(self.keywords.get("steps", defaults(self.attack).get("steps", 0)))

    @property
    def respects_ball(self) -> bool:
        """Whether the named attack keeps to a ball."""
        return self.attack not in WITHOUT_BALL

    @property
    def failure_covers_smaller_eps(self) -> bool:
        """As for this project's own attacks: not for one step, which may overshoot a small ball."""
        return self.attack not in ONE_STEP

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        results = []
        for row, seed in enumerate(seeds.tolist()):
            own = torch.tensor([row], device=images.device)
            with own_random_state(seed, images.device), torch.enable_grad():
                results.append(self._perturb_one(focus(model, own), images[own], labels[own]))
        found = torch.cat(results)
        finite = torch.isfinite(found).flatten(1).all(1).view(-1, 1, 1, 1)
        return project(torch.where(finite, found, images), images, self.eps, self.norm)

    def _perturb_one(self, model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
        """Attack an image, 1×C×H×W, in the global random state that is set.

        Raises:
            UserError: torchattacks fails on images of this shape or on this number of classes.
        """
        grey = self.attack in COLOUR_ONLY and image.shape[1] == 1
        inner = image.expand(-1, 3, -1, -1) if grey else image
        if self.attack == "CW":  # an eighth of a grey level off the ends, so that every pixel can move
            inner = inner.clamp(5e-4, 1 - 5e-4)
        try:
            attack = self._build(MeanOfChannels(model) if grey else model, image)
            found: Tensor = attack(inner, label).detach().to(image).view_as(inner)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            shape = " x ".join(map(str, image.shape[1:]))
            reason = f"{self.attack} of torchattacks fails on images of {shape}: {type(error).__name__}: {error}"
            remedy = "Use another attack; docs/attacks.md lists the known faults"
            raise UserError("attack.attack", reason, remedy) from error
        found = torch.where((found - inner).abs() < 1e-6, image, found)
        return found.mean(1, keepdim=True) if grey else found

    def _build(self, model: nn.Module, image: Tensor) -> Any:
        """The object of torchattacks."""
        import torchattacks

        known = defaults(self.attack)
        filled: dict[str, Any] = {"eps": self.eps, "max_epsilon": self.eps, "norm": self.norm}
        filled["seed"] = int(torch.initial_seed() % 2**31)
        filled["alpha"] = 2.5 * self.eps / self.steps if self.steps else 1.25 * self.eps
        if "n_classes" in known:
            with torch.no_grad():
                filled["n_classes"] = model(image).shape[1]
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in self.keywords.items()}
        attack = getattr(torchattacks, self.attack)(
            model, **{key: value for key, value in filled.items() if key in known}, **own
        )
        if self.attack == "JSMA":
            attack.set_mode_targeted_by_function(partial(likeliest_wrong, model), quiet=True)
        return attack


class MeanOfChannels(nn.Module):
    """A model of grey images that takes three channels: logits of their mean."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits, n×K, of images n×3×H×W."""
        logits: Tensor = self.model(images.mean(1, keepdim=True))
        return logits


def likeliest_wrong(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The wrong class with the largest logit, n."""
    with torch.no_grad():
        logits = model(images)
    wrong: Tensor = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    return wrong


@cache
def defaults(attack: str) -> dict[str, Any]:
    """Keywords of a class of torchattacks and their defaults."""
    import torchattacks

    parameters = signature(getattr(torchattacks, attack).__init__).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not each.empty}


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded global random states (torch, NumPy, Python) inside; afterwards they are what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
