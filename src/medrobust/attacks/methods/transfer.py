"""Transfer: images made on another model; the attacked model provides neither gradients nor predictions."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.lookup import load_attack
from medrobust.attacks.projection import Norm, project
from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SURROGATE_ATTACK
from medrobust.core.params.hyperparameters import build
from medrobust.core.records import file_hash

REMEDY = "Name one of attacks.surrogates, or set a checkpoint's folder and the sha256 from its card.json"


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Attack a surrogate, and use the images on the attacked model (Papernot et al. 2016).

    Attributes:
        source: the surrogate: a checkpoint's folder, or a model (not in a suite). In a suite it can be the name of
            one of `attacks.surrogates`, which `read_suite` replaces by its folder and hash.
        sha256: of the checkpoint's weights, from its card.json. A suite's results depend on it, and DVC does not
            track the folder.
        attack: name in the registry and hyper-parameters. It should not stop at the surrogate's boundary, where
            images hardly transfer.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    source: str | nn.Module = ""
    sha256: str = ""
    attack: dict[str, Any] = field(default_factory=lambda: dict(SURROGATE_ATTACK))

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.source, str) and not self.source:
            raise UserError("attack.source", "no source", REMEDY)
        self.inner()

    @property
    def cost(self) -> float:
        return self.inner().cost

    def inner(self) -> Attack:
        """The attack on the surrogate.

        Raises:
            UserError: it does not exist, does not support the norm, or has no such hyper-parameter.
        """
        name = str(self.attack.get("name"))
        if name == "transfer":
            raise UserError("attack.attack", "transfer inside transfer", "Name the attack for the surrogate")
        attack = load_attack(name, "attack.attack")
        settings = {key: value for key, value in self.attack.items() if key != "name"}
        return build(attack, settings, "attack.attack", eps=self.eps, norm=self.norm)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        surrogate = self.source
        if isinstance(surrogate, str):
            if not self.sha256:
                raise UserError("attack.source", f"source {surrogate!r} without sha256", REMEDY)
            surrogate = _load(surrogate, self.sha256, images.device)
        with torch.no_grad():
            classes, needed = surrogate(images[:1]).shape[1], model(images[:1]).shape[1]
        if classes != needed:
            found = f"{classes} classes, but the attacked model has {needed}"
            raise UserError("attack.source", found, "Use another surrogate")
        attacked = self.inner()(surrogate, images, labels, seeds=seeds)
        return project(attacked, images, self.eps, self.norm)


@lru_cache(maxsize=2)
def _load(folder: str, sha256: str, device: torch.device) -> nn.Module:
    from medrobust.models.checkpoint import load

    weights = Path(folder) / "model.safetensors"
    if weights.is_file() and (found := file_hash(weights)) != sha256:
        raise UserError(folder, f"sha256 {found}, not {sha256}", "Set the sha256 of the surrogate to use")
    return load(folder, device)
