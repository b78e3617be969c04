"""Adversarial training against PGD on the current model."""

import math

from torch import Tensor

from medrobust.core.params.training import AdvParams
from medrobust.training.objectives.base import Step, joint_logits
from medrobust.training.objectives.inner import attack_with_pgd


def mixed(step: Step) -> Tensor:
    """(1 - mix)·CE(clean) + mix·CE(attacked), where the attack is PGD on the current model.

    The mixture is that of Goodfellow et al. 2015, section 6, with the attack of Madry et al. 2018. Clean and
    attacked images form one batch.
    """
    return _mixture(step, attack_with_pgd(step))


def pgd_at(step: Step) -> Tensor:
    """CE(attacked) alone (Madry et al. 2018, equation 2.1)."""
    return step.cross_entropy(step.model(attack_with_pgd(step)))


def curriculum(step: Step) -> Tensor:
    """The loss of `mixed` with a radius and a number of steps that grow (Cai et al. 2018, section 3).

    They grow linearly and reach their full size after the share `ramp` of the epochs.
    """
    return _mixture(step, attack_with_pgd(step, scheduled(step.require_adv(), step.progress)))


def scheduled(adv: AdvParams, progress: float) -> AdvParams:
    """The attack at `progress` (0 to 1) of the training: a share of eps and of the steps, which are rounded up."""
    share = min(progress / adv.ramp, 1.0) if adv.ramp else 1.0
    smallest = None if adv.eps_min is None else adv.eps_min * share
    return adv.model_copy(
        update={"eps": adv.eps * share, "eps_min": smallest, "steps": math.ceil(adv.steps * share)}
    )


def _mixture(step: Step, attacked_images: Tensor) -> Tensor:
    mix = step.require_adv().mix
    clean, attacked = joint_logits(step.model, step.images, attacked_images)
    return (1 - mix) * step.cross_entropy(clean) + mix * step.cross_entropy(attacked)
