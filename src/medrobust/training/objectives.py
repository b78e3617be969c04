"""What a training step minimises."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.pgd import PGD
from medrobust.params.training import AdvParams


class Objective(Protocol):
    """A loss of a batch: images n×C×H×W in [0, 1], labels int64 n, seeds int64 n -> a number."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor: ...


def clean_objective(weight: Tensor | None, label_smoothing: float) -> Objective:
    """Cross-entropy, weighted by class (`weight`, K) and smoothed."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels, weight, label_smoothing=label_smoothing)

    return loss


def mixed_objective(adv: AdvParams, weight: Tensor | None, label_smoothing: float) -> Objective:
    """(1 - mix)·CE(clean) + mix·CE(attacked), the attack being PGD on the current model.

    The mixture is that of Goodfellow et al. 2015, section 6, with the attack of Madry et al. 2018. While it
    attacks, BatchNorm uses its running statistics (eval mode), so that the attack sees the model that will be
    evaluated; clean and attacked images then pass in one batch. Attack gradients are float32.
    """
    attack = training_attack(adv)

    def loss(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        attacked = attack(model, images, labels, seeds=seeds)
        clean_logits, adv_logits = model(torch.cat([images, attacked])).chunk(2)
        options = {"weight": weight, "label_smoothing": label_smoothing}
        clean = F.cross_entropy(clean_logits, labels, **options)  # type: ignore[arg-type]
        return (1 - adv.mix) * clean + adv.mix * F.cross_entropy(adv_logits, labels, **options)  # type: ignore[arg-type]

    return loss


def training_attack(adv: AdvParams, *, stop_when_fooled: bool = False) -> PGD:
    """The PGD of the `adv` block; in training every image takes all steps."""
    alpha = None if adv.alpha == "auto" else adv.alpha
    return PGD(eps=adv.eps, alpha=alpha, steps=adv.steps, stop_when_fooled=stop_when_fooled)
