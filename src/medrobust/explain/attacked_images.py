"""Attacked images, made again because attack records hold none, and noise of the same size as a control."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from medrobust.attacks.engine.evaluate import named_attacks
from medrobust.attacks.projection import Norm, per_image, project
from medrobust.core.seeds import image_seeds, normal, signs
from medrobust.data.store import Subset
from medrobust.explain.chosen_images import strongest_attacks

BATCH = 64


def attacked_images(
    model: nn.Module, subset: Subset, suite: dict[str, Any], attempts: pd.DataFrame, eps: float, *, seed: int,
    train: Subset | None = None,
) -> Tensor:  # fmt: skip
    """Each image under the suite's attack that was strongest on it, with all its steps; n×C×H×W, on the CPU.

    An evaluation ends an attack at the first success, which leaves the image on the border between two classes.
    Here the attack continues to its last step. Images that are misclassified without an attack, on which the
    evaluation tried none, get the suite's cheapest.

    Args:
        suite: as `attacks.engine.suite.resolve_suite` returns it; `eps` is in its norm.
        attempts: the evaluation's records, a table of `attacks.engine.attempts.ATTEMPTS`.
        train: images that fitted attacks are fitted on.
    """
    named = {name: replace(attack, eps=eps) for name, attack in named_attacks(suite)}
    strongest = strongest_attacks(attempts, subset.ids, eps)
    cheapest = next(iter(named))
    names = np.array([strongest.get(name, cheapest) for name in subset.ids])
    device = next(model.parameters()).device
    result, seeds = subset.batch(range(len(subset))), image_seeds(subset.ids, seed)
    targets = subset.targets(range(len(subset)))
    for name, attack in named.items():
        own = np.flatnonzero(names == name)
        ready = (attack.with_training(train) if train is not None and len(own) else attack).to_the_end()
        for rows in np.array_split(own, range(BATCH, len(own), BATCH)):
            if len(rows):
                images, labels, own_seeds = (part[rows].to(device) for part in (result, targets, seeds))
                attacked = ready.for_images(subset, rows.tolist())(model, images, labels, seeds=own_seeds)
                result[rows] = attacked.cpu()
    return result


def noisy_images(subset: Subset, eps: float, norm: Norm, seed: int) -> Tensor:
    """The images under noise as large as an attack: ±eps per pixel, or a random direction of length eps in L2."""
    images, seeds = subset.batch(range(len(subset))), image_seeds(subset.ids, seed)
    shape = tuple(images.shape[1:])
    if norm == "Linf":
        return project(images + eps * signs(seeds, 0, shape), images, eps, norm)
    away = normal(seeds, 0, shape)
    return project(images + eps * away / per_image(away.flatten(1).norm(dim=1)), images, eps, norm)
