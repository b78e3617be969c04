"""The attacks of a suite with all their steps: an evaluation ends each at its first success."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin
from medrobust.attacks.engine.evaluate import build_attack
from medrobust.attacks.problem import BestImages
from medrobust.data.store import Subset


def attacks_with_all_steps(suite: dict[str, Any], eps: float, train: Subset | None = None) -> list[Attack]:
    """The attacks of a resolved suite at one radius, changed so that none of them stops at its first success.

    Images just across the decision boundary seldom transfer to other models, they are harder to detect, and their
    confidence says little about calibration. `train` is for attacks that are fitted on images.
    """
    attacks = [build_attack(entry, eps, suite["norm"]).to_the_end() for entry in suite["attacks"]]
    return attacks if train is None else [attack.with_training(train) for attack in attacks]


def strongest(
    model: nn.Module, attacks: Sequence[Attack], images: Tensor, labels: Tensor, seeds: Tensor
) -> Tensor:
    """Per image the attacked version, n×C×H×W, with the largest margin on `model` over all attacks."""
    best = BestImages(images)
    for attack in attacks:
        attacked = attack(model, images, labels, seeds=seeds)
        with torch.no_grad():
            best.update(attacked, margin(model(attacked), labels))
    return best.images
