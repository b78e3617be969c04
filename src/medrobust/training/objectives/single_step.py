"""Adversarial training whose attack takes one gradient, or none of its own.

All three may overfit catastrophically: robust to their own attack and to no other. The loop watches for it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import project
from medrobust.core.seeds import uniform
from medrobust.training.objectives.base import Step
from medrobust.training.objectives.inner import ascend, attack_with_pgd


def fgsm_rs(step: Step) -> Tensor:
    """CE after one step of size 1.25·eps from a random start ("fast", Wong et al. 2020, algorithm 3).

    `adv.alpha` other than auto replaces 1.25·eps.
    """
    adv = step.attacked()
    alpha = 1.25 * adv.eps if adv.alpha == "auto" else adv.alpha
    images = attack_with_pgd(step, adv.model_copy(update={"steps": 1, "alpha": alpha}))
    return step.cross_entropy(step.model(images))


def n_fgsm(step: Step) -> Tensor:
    """CE after strong noise and one step, without a ball (N-FGSM, de Jorge et al. 2022, algorithm 1).

    The noise is uniform in ±`adv.noise`·eps (the paper's 2), the step eps (or `adv.alpha`); the result is cut
    to [0, 1] alone, so it may lie up to (noise + 1)·eps away.
    """
    adv = step.attacked()
    alpha = adv.eps if adv.alpha == "auto" else adv.alpha

    def attack() -> Tensor:
        noise = 2 * uniform(step.seeds, 0, tuple(step.images.shape[1:])) - 1
        start = (step.images + adv.noise * adv.eps * noise).clamp(0, 1)
        return ascend(step, start, loss, eps=torch.inf, alpha=alpha, steps=1)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, step.labels, reduction="sum")

    return step.cross_entropy(step.model(step.once("adv", attack)))


def free(step: Step) -> Tensor:
    """CE at a perturbation that is carried along ("free", Shafahi et al. 2019, algorithm 1).

    The loop hands every batch in `adv.replays` times (m). One backward pass gives both the step of the weights
    and that of the perturbation, eps·sign, which is taken when the next replay begins. The perturbation lives on
    from batch to batch; it starts at 0. Its gradient has the precision of training.
    """
    adv = step.attacked()
    delta = step.once("delta", lambda: _moved(step, adv.eps))
    images = project(step.images + delta[: len(step.images)], step.images, adv.eps)
    return step.cross_entropy(step.model(images))


def _moved(step: Step, eps: float) -> Tensor:
    """The perturbation after the step that the last backward pass asks for, as a leaf that gathers the next."""
    delta = step.memory.get("delta")
    if delta is None or len(delta) < len(step.images):
        delta = torch.zeros_like(step.images)
    elif delta.grad is not None:
        # An overflow in float16 leaves NaN; torch takes its sign for 0, and the pixel stays.
        delta = (delta.detach() + eps * delta.grad.sign()).clamp(-eps, eps)
    step.memory["delta"] = delta.detach().requires_grad_(True)
    return step.memory["delta"]
