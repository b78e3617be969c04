"""Semi-supervised adversarial training: robustness is also learned from images without labels."""

from dataclasses import replace

from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.training.objectives.base import Step, joint_logits
from medrobust.training.objectives.inner import attack_with_pgd


def ssat(step: Step) -> Tensor:
    """Labelled loss + beta·CE(attacked unlabelled, pseudo-label) (Li, Pan & Zhu 2020, section 3).

    The labelled loss is that of `mixed`. The pseudo-labels are predictions of the clean model from which the
    training starts (as in Carmon et al. 2019, algorithm 1). beta is the paper's lambda, 5. All images form one
    batch.

    Raises:
        UserError: there are no unlabelled images.
    """
    if step.unlabelled is None:
        remedy = "Set a share of the training patients, or a folder of images"
        raise UserError("params.yaml: adv.unlabelled", "no unlabelled images for ssat", remedy)
    adv = step.require_adv()
    images, labels, seeds = step.unlabelled
    unlabelled_step = replace(step, images=images, labels=labels, seeds=seeds, _cache={})
    attacked_unlabelled = step.cached("unlabelled", lambda: attack_with_pgd(unlabelled_step))
    clean, attacked, unlabelled = joint_logits(step.model, step.images, attack_with_pgd(step), attacked_unlabelled)
    labelled = (1 - adv.mix) * step.cross_entropy(clean) + adv.mix * step.cross_entropy(attacked)
    return labelled + adv.beta * step.cross_entropy(unlabelled, labels)
