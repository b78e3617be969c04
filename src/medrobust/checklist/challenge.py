"""Challengers: attacks that find nothing new after a sound evaluation (docs/checklist.md).

Except for noise, one step and plain PGD, a challenger counts only images that plain PGD does not fool, so that its
result has one cause: too few steps or restarts, a bad step size, a saturated loss, or misleading gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.attacks.base import Attack, frozen, margin
from medrobust.attacks.methods.apgd import APGDT
from medrobust.attacks.methods.iterative import FGSM, PGD, VMIFGSM, IteratedGradient
from medrobust.attacks.methods.rays import RayS
from medrobust.attacks.methods.square import Square
from medrobust.attacks.projection import Norm, project
from medrobust.checklist.base import Challenge, ImageSample, RadiusCurve
from medrobust.core.seeds import signs
from medrobust.models.predict import batches

#: Random corners of the ball per image, drawn by the noise control.
NUM_DRAWS = 40
#: Random starts beside the first.
NUM_RESTARTS = 2
#: Step sizes tried beside 2.5·eps/steps, as shares of eps.
STEP_SIZES = (0.1, 2.0)
#: Gradients of the neighbourhood per step of the smoothed attack.
NEIGHBOURS = 3
#: Halvings of the label-only attack: few, so that its queries reach more directions.
HALVINGS = 5
#: Steps at radii where every image has to be fooled.
LARGE_STEPS = 100
BATCH = 64
#: Names of the challengers; each is also the name of the check that uses it.
(
    NOISE, ONE_STEP, PLAIN_PGD, LOGIT_SCALE, CONVERGENCE, RESTARTS, STEP_SIZE, ADAPTIVE, SMOOTHED, BLACK_BOX,
    LABEL_ONLY, TRANSFER, TOGETHER,
) = (
    "noise control", "one step", "plain PGD", "logit scale", "convergence", "restarts", "step size",
    "adaptive steps", "smoothed gradient", "black box", "label only", "transfer", "together",
)  # fmt: skip


def run_challenge(
    model: nn.Module, sample: ImageSample, eps: float, *, steps: int, queries: int,
    siblings: Mapping[str, nn.Module], norm: Norm = "Linf",
) -> Challenge:  # fmt: skip
    """Run every challenger on a sample of images that at least one suite did not fool at `eps`.

    PGD takes as many `steps` as the longest attack of the suites; the black-box attack has `queries` per image.
    Images made on `siblings`, other models of the run for the same classes, are tried on `model`.
    """

    def pgd(count: int = steps, **changes: Any) -> Attack:
        return IteratedGradient(eps=eps, norm=norm, steps=count, **{"loss": "margin", **changes})

    rays = RayS(eps=eps, norm=norm, queries=queries, halvings=HALVINGS)
    sizes = [pgd(alpha=share * eps, allow_weak=True) for share in STEP_SIZES]
    with frozen(model):
        noise, noise_margin = _noise(model, sample, eps, norm)
        plain = fools(model, pgd(loss="ce"), sample)
        margin_loss = _any_fools(model, [pgd()], sample, ~plain)
        left = ~plain & ~margin_loss
        fooled = {
            NOISE: noise,
            ONE_STEP: fools(model, FGSM(eps=eps, norm=norm), sample),
            PLAIN_PGD: plain,
            LOGIT_SCALE: margin_loss,
            CONVERGENCE: _any_fools(model, [pgd(2 * steps)], sample, left),
            RESTARTS: _any_start_fools(model, pgd(), sample, left),
            STEP_SIZE: _any_fools(model, sizes, sample, left),
            ADAPTIVE: _any_fools(model, [APGDT(eps=eps, norm=norm, steps=2 * steps)], sample, left),
            BLACK_BOX: _any_fools(model, [Square(eps=eps, norm=norm, queries=queries)], sample, left),
            LABEL_ONLY: _any_fools(model, [rays], sample, left),
        }
        if norm == "Linf":
            smoothed = VMIFGSM(eps=eps, steps=steps, neighbours=NEIGHBOURS, loss="margin")
            fooled[SMOOTHED] = _any_fools(model, [smoothed], sample, left)
        if siblings:
            fooled[TRANSFER] = left & _transfer(model, sample, pgd(stop_when_fooled=False), siblings)
    fooled[TOGETHER] = np.any([*fooled.values()], axis=0)
    skipped = {} if siblings else {TRANSFER: "no other model for these classes in the run"}
    skipped |= {} if norm == "Linf" else {SMOOTHED: "for Linf only"}
    return Challenge(eps, sample.rows, _descriptions(steps, queries, siblings), fooled, noise_margin, skipped)


def _descriptions(steps: int, queries: int, siblings: Mapping[str, nn.Module]) -> dict[str, str]:
    shares = ", ".join(f"{share:g}" for share in STEP_SIZES)
    return {
        NOISE: f"the worst of {NUM_DRAWS} random corners of the ball",
        ONE_STEP: "a single gradient step",
        PLAIN_PGD: f"PGD-{steps}, cross-entropy",
        LOGIT_SCALE: f"PGD-{steps}, margin loss",
        CONVERGENCE: f"PGD-{2 * steps}",
        RESTARTS: f"PGD-{steps} from {NUM_RESTARTS} more starts",
        STEP_SIZE: f"PGD-{steps} with alpha of {shares} eps",
        ADAPTIVE: f"APGD with {2 * steps} steps towards each wrong class",
        SMOOTHED: f"VMI-FGSM-{steps} with {NEIGHBOURS} neighbours",
        BLACK_BOX: f"Square with {queries} queries",
        LABEL_ONLY: f"RayS with {queries} queries",
        TRANSFER: f"PGD-{steps} on {' and '.join(siblings)}",
        TOGETHER: "all challengers",
    }


def attack_images(model: nn.Module, attack: Attack, sample: ImageSample) -> torch.Tensor:
    """Attacked images, n×C×H×W, computed in batches."""
    parts = [sample.select(rows) for rows in batches(len(sample), BATCH)]
    return torch.cat([attack(model, part.images, part.labels, seeds=part.seeds) for part in parts])


def misclassified(model: nn.Module, images: torch.Tensor, sample: ImageSample) -> np.ndarray:
    """Which images the model does not classify as the sample's labels, bool, n."""
    return margins(model, images, sample) > 0


def margins(model: nn.Module, images: torch.Tensor, sample: ImageSample) -> np.ndarray:
    """Largest other logit minus the true one, n."""
    with torch.no_grad():
        parts = [margin(model(images[rows]), sample.labels[rows]) for rows in batches(len(sample), BATCH)]
    return torch.cat(parts).cpu().numpy()


def fools(model: nn.Module, attack: Attack, sample: ImageSample) -> np.ndarray:
    """Which images an attack fools, bool, n."""
    return misclassified(model, attack_images(model, attack, sample), sample)


def _any_fools(model: nn.Module, attacks: Sequence[Attack], sample: ImageSample, mask: np.ndarray) -> np.ndarray:
    """Which images under `mask` any of the attacks fools; each attack draws its own random starts."""
    fooled = np.zeros(len(sample), dtype=bool)
    for stream, attack in enumerate(attacks, 1):
        left = np.flatnonzero(mask & ~fooled)
        if not len(left):
            break
        part = sample.select(left)
        fooled[left] = fools(model, attack, replace(part, seeds=part.seeds + stream))
    return fooled


def _any_start_fools(model: nn.Module, attack: Attack, sample: ImageSample, mask: np.ndarray) -> np.ndarray:
    """Which images under `mask` an attack fools from any of `NUM_RESTARTS` other starts, all run together."""
    fooled = np.zeros(len(sample), dtype=bool)
    rows = np.tile(np.flatnonzero(mask), NUM_RESTARTS)
    if len(rows):
        part = sample.select(rows)
        stream = torch.arange(NUM_RESTARTS, device=part.seeds.device).repeat_interleave(len(rows) // NUM_RESTARTS)
        hits = fools(model, attack, replace(part, seeds=part.seeds + 1 + stream + len(STEP_SIZES)))
        fooled[rows[hits]] = True
    return fooled


def _noise(model: nn.Module, sample: ImageSample, eps: float, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Random corners of the ball: which images they fool, and the largest margin per image."""
    count, best = len(sample), np.full(len(sample), -np.inf)
    length = eps if norm == "Linf" else eps * sample.images[0].numel() ** -0.5
    draws_per_batch = max(BATCH // count, 1)
    for first in range(0, NUM_DRAWS, draws_per_batch):
        draws = torch.arange(first, min(first + draws_per_batch, NUM_DRAWS), device=sample.seeds.device)
        copies = sample.select(np.tile(np.arange(count), len(draws)))
        corner = signs(copies.seeds, draws.repeat_interleave(count), tuple(copies.images.shape[1:]))
        noisy = project(copies.images + length * corner, copies.images, eps, norm)
        best = np.maximum(best, margins(model, noisy, copies).reshape(len(draws), count).max(0))
    return best > 0, best


def _transfer(
    model: nn.Module, sample: ImageSample, attack: Attack, siblings: Mapping[str, nn.Module]
) -> np.ndarray:
    """Which images are fooled by attacks on other models.

    The attack takes all its steps, because images that only just fool their own model seldom transfer.
    """
    fooled = np.zeros(len(sample), dtype=bool)
    for sibling in siblings.values():
        fooled |= misclassified(model, attack_images(sibling, attack, sample), sample)
    return fooled


def run_curve(model: nn.Module, sample: ImageSample, eps: float, *, steps: int, levels: int) -> RadiusCurve:
    """Attack a sample anew at increasing radii; images fooled at one radius must be fooled at the next.

    The model classifies the sample correctly. The radii are 0.5, 1, 2 and 4 times `eps`, and then 1. `levels` are
    the grey levels of the stored images less one (255 for 8 bit).
    """
    with frozen(model):
        left, not_monotone = sample, 0
        for radius in (eps / 2, eps, 2 * eps, 4 * eps):
            if not len(left):
                break
            fooled = fools(model, PGD(eps=min(radius, 1.0), steps=steps, loss="margin"), left)
            not_monotone = max(not_monotone, int((~fooled).sum()) if radius > eps / 2 else 0)
            left = left.select(fooled)
        robust_at_one = _count_robust_at_one(model, sample, steps)
        rounding = _count_after_rounding(model, sample, eps, steps, levels)
        return RadiusCurve(not_monotone, robust_at_one, len(sample), *rounding)


def _count_after_rounding(
    model: nn.Module, sample: ImageSample, eps: float, steps: int, levels: int
) -> tuple[int, int]:
    """How many images an attack fools, and how many of them are still fooled once they are stored.

    The attack takes all its steps, because images that are only just misclassified never survive rounding.
    """
    images = attack_images(model, PGD(eps=eps, steps=steps, loss="margin", stop_when_fooled=False), sample)
    fooled = misclassified(model, images, sample)
    stored = fooled & misclassified(model, (images * levels).round() / levels, sample)
    return int(fooled.sum()), int(stored.sum())


def _count_robust_at_one(model: nn.Module, sample: ImageSample, steps: int) -> int:
    """How many images are not fooled although the attacker may choose any image at all."""
    left = sample
    attacks = [PGD(eps=eps, steps=count, loss="margin") for count in (steps, LARGE_STEPS) for eps in (0.5, 1.0)]
    for attack in attacks:
        if not len(left):
            break
        left = left.select(~fools(model, attack, left))
    return len(left)
