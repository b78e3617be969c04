"""Attacks that a sound evaluation has no need of: what they fool and the suites did not is a fault of the suites.

They run only on images that some suite left standing, so that a model without robustness costs nothing, and
once a model for all its suites. Each but the simplest counts only where a plain PGD failed too, so that what
it finds has one cause: too few steps or starts, a bad step size, a saturated loss, or gradients that mislead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from medrobust.attacks.base import Attack, Norm, frozen, margin, project
from medrobust.attacks.methods.iterative import PGDL2
from medrobust.attacks.methods.pgd import FGSM, PGD
from medrobust.attacks.methods.square import Square
from medrobust.attacks.methods.square_l2 import SquareL2
from medrobust.checklist.base import Challenge, Curve, Sample
from medrobust.core.seeds import signs

#: Corners of the ball that the noise control draws an image.
DRAWS = 100
#: Random starts beyond the first.
RESTARTS = 4
#: Step sizes tried beside 2.5·eps/steps, as shares of eps.
STEP_SIZES = (0.1, 0.5, 1.0)
#: Steps at a radius where every image has to fall.
LARGE_STEPS = 100
#: Images a forward pass.
BATCH = 64
#: Names of the challengers; each is also the name of the check that reads it.
NOISE, ONE_STEP, PLAIN, LOSS, STEPS, STARTS, SIZE, BLIND, TRANSFER = (
    "noise control", "one step", "plain PGD", "logit scale", "convergence", "restarts", "step size", "black box",
    "transfer",
)  # fmt: skip


def run_challenge(
    model: nn.Module, sample: Sample, eps: float, *, steps: int, queries: int, siblings: Mapping[str, nn.Module],
    norm: Norm = "Linf",
) -> Challenge:  # fmt: skip
    """Let every challenger loose on some images that stand.

    Args:
        model: images in [0, 1] to logits.
        sample: images that at least one suite left standing at `eps`.
        eps: radius of the ball in `norm`.
        steps: of PGD; the most that an attack of the suites takes.
        queries: of the black-box attack, an image.
        siblings: other models of the run for the same classes; their adversarial images are tried here.
    """

    def pgd(count: int = steps, **changes: Any) -> Attack:
        kind = PGD if norm == "Linf" else PGDL2
        return kind(eps=eps, steps=count, **{"loss": "margin", **changes})

    square: type[Square] | type[SquareL2] = Square if norm == "Linf" else SquareL2
    single = FGSM(eps=eps) if norm == "Linf" else pgd(1, alpha=eps, random_start=False, loss="ce")
    sizes = [pgd(alpha=share * eps, allow_weak=True) for share in STEP_SIZES]
    with frozen(model):
        noise, noise_margin = _noise(model, sample, eps, norm)
        plain = hits(model, pgd(loss="ce"), sample)
        scaled = _among(model, [pgd()], sample, ~plain)
        left = ~plain & ~scaled
        fooled = {
            NOISE: noise,
            ONE_STEP: hits(model, single, sample),
            PLAIN: plain,
            LOSS: scaled,
            STEPS: _among(model, [pgd(2 * steps)], sample, left),
            STARTS: _starts(model, pgd(), sample, left),
            SIZE: _among(model, sizes, sample, left),
            BLIND: _among(model, [square(eps=eps, queries=queries)], sample, left),
        }
        if siblings:
            fooled[TRANSFER] = left & _transfer(model, sample, pgd(stop_when_fooled=False), siblings)
    skipped = {} if siblings else {TRANSFER: "no other model for these classes in the run"}
    return Challenge(eps, sample.rows, _who(steps, queries, siblings), fooled, noise_margin, skipped)


def _who(steps: int, queries: int, siblings: Mapping[str, nn.Module]) -> dict[str, str]:
    """What each challenger does, in words."""
    shares = ", ".join(f"{share:g}" for share in STEP_SIZES)
    return {
        NOISE: f"the worst of {DRAWS} random corners of the ball",
        ONE_STEP: "a single gradient step",
        PLAIN: f"PGD-{steps}, cross-entropy",
        LOSS: f"PGD-{steps} on the margin",
        STEPS: f"PGD-{2 * steps}",
        STARTS: f"PGD-{steps} from {RESTARTS} more starts",
        SIZE: f"PGD-{steps} with alpha of {shares} eps",
        BLIND: f"Square with {queries} queries",
        TRANSFER: f"PGD-{steps} on {' and '.join(siblings)}",
    }


def attacked(model: nn.Module, attack: Attack, sample: Sample) -> torch.Tensor:
    """Attacked images, n×C×H×W, a batch at a time."""
    parts = [sample.part(rows) for rows in _batches(len(sample))]
    return torch.cat([attack(model, part.images, part.labels, seeds=part.seeds) for part in parts])


def wrong(model: nn.Module, images: torch.Tensor, sample: Sample) -> np.ndarray:
    """Which images the model does not answer with the sample's labels, bool, n."""
    return margins(model, images, sample) > 0


def margins(model: nn.Module, images: torch.Tensor, sample: Sample) -> np.ndarray:
    """Largest other logit minus the true one, n."""
    with torch.no_grad():
        parts = [margin(model(images[rows]), sample.labels[rows]) for rows in _batches(len(sample))]
    found: np.ndarray = torch.cat(parts).cpu().numpy()
    return found


def hits(model: nn.Module, attack: Attack, sample: Sample) -> np.ndarray:
    """Which images an attack fools, bool, n."""
    return wrong(model, attacked(model, attack, sample), sample)


def _batches(count: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def _among(model: nn.Module, attacks: Sequence[Attack], sample: Sample, where: np.ndarray) -> np.ndarray:
    """Which of the images under `where` one of some attacks fools; each starts elsewhere in the ball."""
    found = np.zeros(len(sample), dtype=bool)
    for stream, attack in enumerate(attacks, 1):
        left = np.flatnonzero(where & ~found)
        if not len(left):
            break
        part = sample.part(left)
        found[left] = hits(model, attack, replace(part, seeds=part.seeds + stream))
    return found


def _starts(model: nn.Module, attack: Attack, sample: Sample, where: np.ndarray) -> np.ndarray:
    """Which of the images under `where` an attack fools from one of `RESTARTS` other starts, all in one batch."""
    found = np.zeros(len(sample), dtype=bool)
    rows = np.tile(np.flatnonzero(where), RESTARTS)
    if len(rows):
        part = sample.part(rows)
        stream = torch.arange(RESTARTS, device=part.seeds.device).repeat_interleave(len(rows) // RESTARTS)
        fooled = hits(model, attack, replace(part, seeds=part.seeds + 1 + stream + len(STEP_SIZES)))
        found[rows[fooled]] = True
    return found


def _noise(model: nn.Module, sample: Sample, eps: float, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Random corners of the ball: which images they fool, and the largest margin that each image reached."""
    count, best = len(sample), np.full(len(sample), -np.inf)
    length = eps if norm == "Linf" else eps * sample.images[0].numel() ** -0.5
    together = max(BATCH // count, 1)
    for first in range(0, DRAWS, together):
        draws = torch.arange(first, min(first + together, DRAWS), device=sample.seeds.device)
        many = sample.part(np.tile(np.arange(count), len(draws)))
        corner = signs(many.seeds, draws.repeat_interleave(count), tuple(many.images.shape[1:]))
        noisy = project(many.images + length * corner, many.images, eps, norm)
        best = np.maximum(best, margins(model, noisy, many).reshape(len(draws), count).max(0))
    return best > 0, best


def _transfer(model: nn.Module, sample: Sample, attack: Attack, siblings: Mapping[str, nn.Module]) -> np.ndarray:
    """Images made on other models, with all steps: an image that only just fools its own model seldom travels."""
    found = np.zeros(len(sample), dtype=bool)
    for sibling in siblings.values():
        found |= wrong(model, attacked(sibling, attack, sample), sample)
    return found


def run_curve(model: nn.Module, sample: Sample, eps: float, *, steps: int, levels: int) -> Curve:
    """Attack a sample afresh at rising radii, each time only what fell before: that must fall again.

    Args:
        model: images in [0, 1] to logits.
        sample: images that the model answers rightly.
        eps: the radius of the checks; the curve goes from half of it to four times it, and then to 1.
        steps: of PGD.
        levels: grey levels of the stored images less one (255 for 8 bit).
    """
    with frozen(model):
        left, lost = sample, 0
        for radius in (eps / 2, eps, 2 * eps, 4 * eps):
            if not len(left):
                break
            fell = hits(model, PGD(eps=min(radius, 1.0), steps=steps, loss="margin"), left)
            lost = max(lost, int((~fell).sum()) if radius > eps / 2 else 0)
            left = left.part(fell)
        standing = _standing_at_one(model, sample, steps)
        return Curve(lost, standing, len(sample), *_rounding(model, sample, eps, steps, levels))


def _rounding(model: nn.Module, sample: Sample, eps: float, steps: int, levels: int) -> tuple[int, int]:
    """How many images an attack fools, and how many of these it still fools once they are stored.

    The attack goes on after its first success: an image that only just fools is always lost by rounding.
    """
    found = attacked(model, PGD(eps=eps, steps=steps, loss="margin", stop_when_fooled=False), sample)
    fell = wrong(model, found, sample)
    return int(fell.sum()), int((fell & wrong(model, (found * levels).round() / levels, sample)).sum())


def _standing_at_one(model: nn.Module, sample: Sample, steps: int) -> int:
    """How many images stand where an attacker may choose any image at all."""
    left = sample
    attacks = [PGD(eps=eps, steps=count, loss="margin") for count in (steps, LARGE_STEPS) for eps in (0.5, 1.0)]
    for attack in attacks:
        if not len(left):
            break
        left = left.part(~hits(model, attack, left))
    return len(left)
