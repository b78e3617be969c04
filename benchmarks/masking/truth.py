"""Claimed and true robust accuracy: a weak suite, the default one, and attacks that may circumvent a mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.masking.networks import EPS
from benchmarks.masking.zoo import beneath
from medrobust.attacks.base import Attack, frozen, margin
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.apgd import APGDT
from medrobust.attacks.methods.iterative import PGD
from medrobust.attacks.methods.square import Square
from medrobust.attacks.projection import project
from medrobust.attacks.state import loss_gradient
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.schema import load_params
from medrobust.core.seeds import image_seeds, signs
from medrobust.data.store import Subset

DEFAULT = load_params(Path(__file__).parents[2] / "presets" / "default.yaml")
RADII = [EPS / 4, EPS / 2, EPS]
#: A weak suite, and the default one.
WEAK, STRONG = "fgsm", "white_box"
SUITES = {WEAK: [{"name": "fgsm"}], STRONG: DEFAULT.attacks.suites[STRONG].attacks}
SMOOTH_STEPS, SMOOTH_DRAWS = 15, 8


def claimed(model: nn.Module, images: Subset) -> dict[str, tuple[dict[str, Any], pd.DataFrame]]:
    """Each of `SUITES`, resolved, and its attempts on the model."""
    resolved = {
        name: resolve_suite(name, SuiteParams(norm="Linf", eps=RADII, attacks=attacks))
        for name, attacks in SUITES.items()
    }
    return {
        name: (suite, attack_suite(model, images, suite, seed=0, allow_weak=True))
        for name, suite in resolved.items()
    }


def true_robust(model: nn.Module, images: Subset, robust: np.ndarray) -> np.ndarray:
    """Which of the images that are `robust` to the suites (bool n) are robust to every attack here.

    The attacks use the gradients of the network beneath the mask, those of the model, averages of the model's
    gradients and differences over random steps, and scores alone. A prediction counts as wrong if most of nine
    passes are wrong, since a model may be random.
    """
    left = np.flatnonzero(robust)
    hidden = beneath(model)
    attacks: list[tuple[nn.Module, Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]]] = [
        (hidden, _whole(APGDT(eps=EPS, steps=50, loss="margin"))),
        (hidden, _whole(PGD(eps=EPS, steps=40, loss="margin", stop_when_fooled=False))),
        (hidden, _whole(PGD(eps=EPS, steps=40, alpha=EPS / 2, loss="margin", stop_when_fooled=False))),
        (model, _whole(APGDT(eps=EPS, steps=50))),
        (model, _smoothed),
        (model, _whole(Square(eps=EPS, queries=1000))),
    ]
    for guide, attack in attacks:
        if not len(left):
            break
        batch, labels, seeds = images.batch(left), images.targets(left), image_seeds(images.ids[left], 7)
        with frozen(guide), frozen(model):
            attacked = attack(guide, batch, labels, seeds)
            left = left[~_usually_wrong(model, attacked, labels)]
    result = np.zeros_like(robust)
    result[left] = True
    return result


def _whole(attack: Attack) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    return lambda model, images, labels, seeds: attack(model, images, labels, seeds=seeds)


def _usually_wrong(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    with torch.no_grad():
        wrong = torch.stack([model(images).argmax(1) != labels for _ in range(9)]).float().mean(0) > 0.5
    return wrong.numpy()


def _smoothed(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
    """Sign steps along gradients and differences of the margin, both averaged over random steps of eps/2."""
    current = best = images
    top = torch.full((len(images),), -torch.inf)
    shape = tuple(images.shape[1:])
    for step in range(SMOOTH_STEPS):
        slope = torch.zeros_like(images)
        for draw in range(SMOOTH_DRAWS):
            sign = signs(seeds, 1 + step * SMOOTH_DRAWS + draw, shape)
            near = (current + EPS / 2 * sign).clamp(0, 1)
            slope += loss_gradient(model, near, labels, "margin")[1]
            with torch.no_grad():
                pair = [margin(model((current + side * EPS / 2 * sign).clamp(0, 1)), labels) for side in (1, -1)]
            difference = (pair[0] - pair[1]).view(-1, 1, 1, 1) * sign
            size = slope.flatten(1).abs().mean(1).clamp_min(1e-30).view(-1, 1, 1, 1) / (draw + 1)
            spread = difference.flatten(1).abs().mean(1).clamp_min(1e-30).view(-1, 1, 1, 1)
            slope = slope + 0.5 * difference / spread * size
        current = project(current + EPS / 5 * slope.sign(), images, EPS)
        with torch.no_grad():
            value = margin(model(current), labels)
        better = value > top
        best = torch.where(better.view(-1, 1, 1, 1), current, best)
        top = torch.where(better, value, top)
    return best
