"""Attacked images of a subset, made again from suite and seeds because attack records hold no images."""

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.features import BATCH
from medrobust.models.predict import batches


class SuiteAttack:
    """For each image the strongest attack of a resolved suite, after all its steps (`attacks_with_all_steps`).

    `suite` is a result of `attacks.engine.suite.resolve_suite`; `train` is for attacks that are fitted on training
    images.
    """

    def __init__(self, suite: dict[str, Any], eps: float, train: Subset | None = None) -> None:
        self.attacks = attacks_with_all_steps(suite, eps, train)

    def for_images(self, subset: Subset, rows: list[int]) -> "SuiteAttack":
        """The suite's attack on these rows of a subset, whose masks its attacks may need."""
        ready = copy(self)
        ready.attacks = [attack.for_images(subset, rows) for attack in self.attacks]
        return ready

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seeds: Tensor) -> Tensor:
        return strongest(model, self.attacks, images, labels, seeds)


def changed_images(
    model: nn.Module, subset: Subset, attack: "Attack | SuiteAttack", seed: int, desc: str
) -> Tensor:
    """All images of a subset after the attack, n×C×H×W on the CPU."""
    device, seeds = next(model.parameters()).device, image_seeds(subset.ids, seed)
    parts = []
    for rows in progress(list(batches(len(subset), BATCH)), desc, unit="batches"):
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        ready = attack.for_images(subset, rows.tolist())
        parts.append(ready(model, images, labels, seeds=seeds[rows].to(device)).cpu())
    return torch.cat(parts)
