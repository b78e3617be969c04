"""Adversarial training whose attack takes a single gradient step; the loop stops at catastrophic overfitting."""

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.projection import project
from medrobust.core.seeds import uniform
from medrobust.training.objectives.base import Step
from medrobust.training.objectives.inner import ascend, attack_with_pgd


def fgsm_rs(step: Step) -> Tensor:
    """CE after one step of size 1.25·eps from a random start ("fast", Wong et al. 2020, algorithm 3).

    A value of `adv.alpha` other than auto replaces 1.25·eps.
    """
    adv = step.require_adv()
    alpha = 1.25 * adv.eps if adv.alpha == "auto" else adv.alpha
    images = attack_with_pgd(step, adv.model_copy(update={"steps": 1, "alpha": alpha}))
    return step.cross_entropy(step.model(images))


def n_fgsm(step: Step) -> Tensor:
    """CE after strong noise and one step, without a ball (N-FGSM, de Jorge et al. 2022, algorithm 1).

    The noise is uniform in ±`adv.noise`·eps (the paper's 2). The step size is eps, or `adv.alpha` if it is set.
    The result is only clipped to [0, 1], so its distance to the image is at most (noise + 1)·eps.
    """
    adv = step.require_adv()
    alpha = adv.eps if adv.alpha == "auto" else adv.alpha

    def attack() -> Tensor:
        noise = 2 * uniform(step.seeds, 0, tuple(step.images.shape[1:])) - 1
        start = (step.images + adv.noise * adv.eps * noise).clamp(0, 1)
        return ascend(step, start, loss, eps=1.0, alpha=alpha, steps=1)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, step.labels, reduction="sum")

    return step.cross_entropy(step.model(step.cached("adv", attack)))


def free(step: Step) -> Tensor:
    """CE with a perturbation that is kept between steps ("free", Shafahi et al. 2019, algorithm 1).

    The loop repeats every batch `adv.replays` times (m). One backward pass yields the gradients of the weights and
    of the perturbation, which changes by eps·sign at the start of the next replay. The perturbation is kept from
    batch to batch and starts at 0. Its gradient has the number format of training.
    """
    adv = step.require_adv()
    delta = step.cached("delta", lambda: _updated_delta(step, adv.eps))
    images = project(step.images + delta[: len(step.images)], step.images, adv.eps)
    return step.cross_entropy(step.model(images))


def _updated_delta(step: Step, eps: float) -> Tensor:
    """The perturbation after a step along its last gradient, as a leaf that collects the next gradient."""
    delta = step.memory.get("delta")
    if delta is None or len(delta) < len(step.images):
        delta = torch.zeros_like(step.images)
    elif delta.grad is not None:
        # An overflow in float16 leaves NaN. torch's sign of NaN is 0, so that the pixel does not change.
        delta = (delta.detach() + eps * delta.grad.sign()).clamp(-eps, eps)
    step.memory["delta"] = delta.detach().requires_grad_(True)
    return step.memory["delta"]
