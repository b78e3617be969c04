"""Adversarial training against PGD on the current model."""

import math

from torch import Tensor

from medrobust.core.params.training import AdvParams
from medrobust.training.objectives.base import Step, both
from medrobust.training.objectives.inner import attack_with_pgd


def mixed(step: Step) -> Tensor:
    """(1 - mix)·CE(clean) + mix·CE(attacked), the attack being PGD on the current model.

    The mixture is that of Goodfellow et al. 2015, section 6, with the attack of Madry et al. 2018. Clean and
    attacked images pass in one batch.
    """
    mix = step.attacked().mix
    clean, attacked = both(step.model, step.images, attack_with_pgd(step))
    return (1 - mix) * step.cross_entropy(clean) + mix * step.cross_entropy(attacked)


def pgd_at(step: Step) -> Tensor:
    """CE(attacked) alone (Madry et al. 2018, equation 2.1)."""
    return step.cross_entropy(step.model(attack_with_pgd(step)))


def curriculum(step: Step) -> Tensor:
    """The loss of `mixed` while radius and steps grow to their full size (Cai et al. 2018, section 3).

    They grow linearly over the first `ramp` share of the epochs.
    """
    mix = step.attacked().mix
    images = attack_with_pgd(step, scheduled(step.attacked(), step.progress))
    clean, attacked = both(step.model, step.images, images)
    return (1 - mix) * step.cross_entropy(clean) + mix * step.cross_entropy(attacked)


def scheduled(adv: AdvParams, progress: float) -> AdvParams:
    """The attack when `progress` (0 to 1) of the training is done: its share of eps and, rounded up, of steps."""
    share = min(progress / adv.ramp, 1.0) if adv.ramp else 1.0
    return adv.model_copy(update={"eps": adv.eps * share, "steps": math.ceil(adv.steps * share)})
