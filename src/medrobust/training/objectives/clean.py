"""Objectives without an attack."""

import math

from torch import Tensor, arange
from torch.nn import functional as F

from medrobust.core.errors import UserError
from medrobust.training.objectives.base import Step


def cross_entropy(step: Step) -> Tensor:
    """Cross-entropy with class weights and label smoothing (Szegedy et al. 2016, section 7)."""
    return step.cross_entropy(step.model(step.images))


def guided_complement_entropy(step: Step) -> Tensor:
    """Guided complement entropy, a defence without an attack (Chen et al. 2019, section 3).

    -1/n Σ p_y^a · H(q) / log(K - 1), where q is the distribution over the K - 1 wrong classes,
    q_j = p_j / (1 - p_y), H is its entropy, and a is `train.gce_alpha` (the paper's 1/3). Minimising it makes the
    wrong classes equally likely; an image counts more the likelier its true class is. The loss lies in [-1, 0].

    Raises:
        UserError: there are two classes, and a single wrong class has no entropy.
    """
    logits = step.model(step.images)
    classes = logits.shape[1]
    if classes < 3:
        remedy = "Use another objective: one wrong class has no entropy"
        raise UserError("params.yaml: train.objective", f"gce with {classes} classes", remedy)
    wrong = arange(classes, device=logits.device)[None, :] != step.labels[:, None]
    log_q = logits[wrong].view(len(logits), classes - 1).log_softmax(1)
    entropy = -(log_q.exp() * log_q).sum(1) / math.log(classes - 1)
    guide = step.train.gce_alpha * F.log_softmax(logits, 1).gather(1, step.labels[:, None]).squeeze(1)
    return -step.mean(guide.exp() * entropy)
