"""Semi-supervised adversarial training: images without labels teach robustness too."""

from dataclasses import replace

from torch import Tensor

from medrobust.core.errors import UserError
from medrobust.training.objectives.base import Step, both
from medrobust.training.objectives.inner import attack_with_pgd


def ssat(step: Step) -> Tensor:
    """Labelled loss + beta·CE(attacked unlabelled, pseudo-label) (Li, Pan & Zhu 2020, section 3).

    The labelled loss is that of `mixed`; pseudo-labels are the answers of the clean model that the training
    starts from (as in Carmon et al. 2019, algorithm 1); beta is the paper's lambda, 5. All images pass in one
    batch.

    Raises:
        UserError: there are no unlabelled images.
    """
    if step.unlabelled is None:
        remedy = "Give a share of the training patients, or a folder of images"
        raise UserError("params.yaml: adv.unlabelled", "no unlabelled images for ssat", remedy)
    adv = step.attacked()
    images, labels, seeds = step.unlabelled
    twin = replace(step, images=images, labels=labels, seeds=seeds, _kept={})
    others = step.once("unlabelled", lambda: attack_with_pgd(twin))
    clean, attacked, unlabelled = both(step.model, step.images, attack_with_pgd(step), others)
    labelled = (1 - adv.mix) * step.cross_entropy(clean) + adv.mix * step.cross_entropy(attacked)
    return labelled + adv.beta * step.cross_entropy(unlabelled, labels)
