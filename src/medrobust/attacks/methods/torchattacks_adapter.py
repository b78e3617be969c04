"""Any attack of the torchattacks library, by the name of its class, behind this project's contract.

Each image is attacked by itself, under its own seed. docs/attacks.md lists the library's faults and remedies.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, check_alpha, focus
from medrobust.attacks.projection import Norm, per_image, project
from medrobust.core.errors import UserError

#: Attacks that take no radius or look for the smallest change.
WITHOUT_BALL = ("CW", "DeepFool", "EADEN", "EADL1", "FAB", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool")
#: Every attack that can be named -> norms that it supports.
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
#: Attacks with kernels for three channels. Grey images pass them as three equal channels.
COLOUR_ONLY = ("PIFGSM", "PIFGSMPP", "TIFGSM")
#: Errors that torchattacks raises on images or numbers of classes that it cannot handle.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: Keywords of constructors that the adapter sets itself.
SET_BY_ADAPTER = {"self", "model", "eps", "max_epsilon", "norm", "seed", "n_classes", "verbose"}
#: Keywords that take any number although their default is an integer.
REAL = {"c", "kappa", "lam", "nsig", "scale"}


@dataclass(frozen=True, kw_only=True, init=False)
class Torchattacks(Attack):
    """One attack of torchattacks (`attack`, a key of `NORMS`), one image at a time.

    Besides its own attributes, it accepts every keyword of the named class, with the class's default. Only the
    default of `alpha` differs: 2.5·eps/steps, or 1.25·eps for a class without `steps`. `allow_weak` accepts
    alpha·steps < eps.
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
            found = f"{self.attack} supports {NORMS[self.attack][0]}, but the suite has {self.norm}"
            known = sorted(name for name, norms in NORMS.items() if self.norm in norms)
            raise UserError("attack.attack", found, f"Use one for {self.norm}: {', '.join(known)}")
        known = [name for name in defaults(self.attack) if name not in SET_BY_ADAPTER]
        for key, value in self.keywords.items():
            if key not in known:
                names = ", ".join(["attack", "allow_weak", *known])
                raise UserError(f"attack.{key}", "unknown hyper-parameter", f"Known: {names}")
            default = defaults(self.attack)[key]
            kinds: Any = (int, float) if isinstance(default, float) or key in REAL else type(default)
            if isinstance(default, tuple):
                kinds = (list, tuple)
            if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
                raise UserError(f"attack.{key}", f"got {value!r}", f"Use a value like the default {default!r}")
        if "alpha" in self.keywords and self.steps:
            check_alpha(self.keywords["alpha"], self.steps, self.eps, self.allow_weak)

    @property
    def steps(self) -> int:
        """Value of the keyword `steps`; 0 for a class without it."""
        return int(self.keywords.get("steps", defaults(self.attack).get("steps", 0)))

    @property
    def respects_ball(self) -> bool:
        return self.attack not in WITHOUT_BALL

    @property
    def failure_covers_smaller_eps(self) -> bool:
        return self.attack not in ONE_STEP

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        results = []
        for row, seed in enumerate(seeds.tolist()):
            own = torch.tensor([row], device=images.device)
            with seeded_random_state(seed, images.device), torch.enable_grad():
                results.append(self._perturb_one(focus(model, own), images[own], labels[own]))
        result = torch.cat(results)
        finite = per_image(torch.isfinite(result).flatten(1).all(1))
        return project(torch.where(finite, result, images), images, self.eps, self.norm)

    def _perturb_one(self, model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
        """Attack an image, 1×C×H×W, with the current global random state."""
        grey = self.attack in COLOUR_ONLY and image.shape[1] == 1
        inner = image.expand(-1, 3, -1, -1) if grey else image
        if self.attack == "CW":  # an eighth of a grey level away from 0 and 1, so that every pixel can move
            inner = inner.clamp(5e-4, 1 - 5e-4)
        try:
            attack = self._build(MeanOfChannels(model) if grey else model, image)
            result: Tensor = attack(inner, label).detach().to(image).view_as(inner)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            shape = " x ".join(map(str, image.shape[1:]))
            reason = f"{self.attack} of torchattacks fails on images of {shape}: {type(error).__name__}: {error}"
            remedy = "Use another attack; docs/attacks.md lists the known faults"
            raise UserError("attack.attack", reason, remedy) from error
        result = torch.where((result - inner).abs() < 1e-6, image, result)
        return result.mean(1, keepdim=True) if grey else result

    def _build(self, model: nn.Module, image: Tensor) -> Any:
        import torchattacks

        known = defaults(self.attack)
        values: dict[str, Any] = {
            "eps": self.eps, "max_epsilon": self.eps, "norm": self.norm,
            "seed": int(torch.initial_seed() % 2**31),
            "alpha": 2.5 * self.eps / self.steps if self.steps else 1.25 * self.eps,
        }  # fmt: skip
        if "n_classes" in known or self.attack == "JSMA":
            with torch.no_grad():
                values["n_classes"] = model(image).shape[1]
        values |= {key: tuple(value) if isinstance(value, list) else value for key, value in self.keywords.items()}
        chosen = {key: value for key, value in values.items() if key in known}
        attack = getattr(torchattacks, self.attack)(model, **chosen)
        if self.attack == "JSMA":  # it needs a target: the most likely wrong class
            attack.set_mode_targeted_least_likely(kth_min=values["n_classes"] - 1, quiet=True)
        return attack


class MeanOfChannels(nn.Module):
    """A model of grey images for inputs with three channels, of which it takes the mean."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.mean(1, keepdim=True))


@cache
def defaults(attack: str) -> dict[str, Any]:
    """Keywords of a class of torchattacks and their defaults."""
    import torchattacks

    parameters = signature(getattr(torchattacks, attack).__init__).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not each.empty}


@contextmanager
def seeded_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random states of torch, NumPy and Python, and restore them afterwards."""
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
