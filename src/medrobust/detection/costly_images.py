"""Attacked images whose wrong class costs most: an attack on any wrong class finds the nearest one."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.methods.iterative import IteratedGradient
from medrobust.attacks.problem import TargetableAttack
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.attacked_images import SuiteAttack
from medrobust.detection.features import BATCH
from medrobust.models.predict import batches


def cost_attack(suite: dict[str, Any], eps: float) -> TargetableAttack:
    """PGD in the ball of a resolved suite with as many steps as its longest attack, at least 10.

    If all attacks of the suite keep to the same region, so does this one.
    """
    attacks = SuiteAttack(suite, eps).attacks
    steps = max(10, *(int(getattr(attack, "steps", 0)) for attack in attacks))
    made = IteratedGradient(eps=eps, norm=suite["norm"], steps=steps, loss="margin", stop_when_fooled=False)
    masks = {getattr(attack, "mask", None) for attack in attacks}
    return replace(made, mask=masks.pop(), top=getattr(attacks[0], "top", made.top)) if len(masks) == 1 else made


def costliest_images(
    model: nn.Module, subset: Subset, attacked: Tensor, attack: TargetableAttack, errors: np.ndarray, seed: int,
    desc: str,
) -> Tensor:  # fmt: skip
    """The attacked images, n×C×H×W on the CPU, replaced where a costlier wrong class can be reached in the ball.

    Each image that fools the model (in eval mode) is attacked with the costliest class as its target. If that
    fails, the next one follows, as long as it costs more than the class that is predicted already. `errors` (K×K)
    are the costs of `risk.Prices`.
    """
    device, seeds = next(model.parameters()).device, image_seeds(subset.ids, seed)
    result, prices = attacked.clone(), torch.from_numpy(errors).to(device)
    for rows in progress(list(batches(len(subset), BATCH)), desc, unit="batches"):
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        ready = attack.for_images(subset, rows.tolist())
        best = attacked[rows].to(device)
        paid, left = _costs(model, best, labels, prices), prices.clone()
        for _ in range(len(prices) - 1):
            chosen = torch.nonzero((paid > 0) & (left[labels].amax(1) > paid)).squeeze(1)
            if not len(chosen):
                break
            aimed = replace(_rows_of(ready, chosen), target="most_costly", costs=left.tolist())
            made = aimed(model, images[chosen], labels[chosen], seeds=seeds[rows][chosen.cpu()].to(device))
            cost = _costs(model, made, labels[chosen], prices)
            better = cost > paid[chosen]
            best[chosen[better]], paid[chosen[better]] = made[better], cost[better]
            left[torch.arange(len(left)), left.argmax(1)] = -1.0
        result[rows] = best.cpu()
    return result


def _costs(model: nn.Module, images: Tensor, labels: Tensor, prices: Tensor) -> Tensor:
    with torch.no_grad():
        return prices[labels, model(images).argmax(1)]


def _rows_of(attack: TargetableAttack, rows: Tensor) -> TargetableAttack:
    """The attack with the masks of these images only, if it has masks."""
    return replace(attack, mask=attack.mask[rows.cpu()]) if isinstance(attack.mask, Tensor) else attack
