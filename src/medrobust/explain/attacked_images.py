"""Attacked images, made again because attack records hold none, and noise of the same size as a control."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin
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
    Here the attack continues to its last step. Where that loses a recorded success, the first success is used.
    Images that are misclassified without an attack, on which the evaluation tried none, get the suite's cheapest.

    Args:
        suite: as `attacks.engine.suite.resolve_suite` returns it; `eps` is in its norm.
        attempts: the evaluation's records, a table of `attacks.engine.attempts.ATTEMPTS`.
        train: images that fitted attacks are fitted on.
    """
    named = {name: replace(attack, eps=eps) for name, attack in named_attacks(suite)}
    strongest = strongest_attacks(attempts, subset.ids, eps)
    cheapest = next(iter(named))
    names, hits = zip(*(strongest.get(name, (cheapest, False)) for name in subset.ids), strict=True)
    result, seeds = subset.batch(range(len(subset))), image_seeds(subset.ids, seed)
    for name, attack in named.items():
        own = np.flatnonzero(np.array(names) == name)
        ready = attack.with_training(train) if train is not None and len(own) else attack
        for rows in np.array_split(own, range(BATCH, len(own), BATCH)):
            if len(rows):
                fitted, hit = ready.for_images(subset, rows.tolist()), torch.tensor(hits)[rows]
                result[rows] = _attack(model, fitted, result[rows], subset.targets(rows), seeds[rows], hit)
    return result


def _attack(
    model: nn.Module, attack: Attack, images: Tensor, labels: Tensor, seeds: Tensor, hit: Tensor
) -> Tensor:
    """All steps of one attack; only to the first success where all steps lose a recorded success (`hit`)."""
    device = next(model.parameters()).device
    images, labels, seeds = images.to(device), labels.to(device), seeds.to(device)
    whole = attack.to_the_end()
    attacked = whole(model, images, labels, seeds=seeds)
    with torch.no_grad():
        lost = (margin(model(attacked), labels) <= 0) & hit.to(device)
    if whole is not attack and lost.any():
        attacked[lost] = attack(model, images[lost], labels[lost], seeds=seeds[lost])
    return attacked.cpu()


def noisy_images(subset: Subset, eps: float, norm: Norm, seed: int) -> Tensor:
    """The images under noise as large as an attack: ±eps per pixel, or a random direction of length eps in L2."""
    images, seeds = subset.batch(range(len(subset))), image_seeds(subset.ids, seed)
    shape = tuple(images.shape[1:])
    if norm == "Linf":
        return project(images + eps * signs(seeds, 0, shape), images, eps, norm)
    away = normal(seeds, 0, shape)
    return project(images + eps * away / per_image(away.flatten(1).norm(dim=1)), images, eps, norm)
