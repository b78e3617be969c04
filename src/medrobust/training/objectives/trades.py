"""Objectives that weigh robustness against accuracy by a Kullback-Leibler term."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import frozen
from medrobust.core.seeds import normal
from medrobust.training.objectives.base import Step, both
from medrobust.training.objectives.inner import ascend, attack_view, attack_with_pgd, training_attack

#: Standard deviation of TRADES' start around the image (its published code).
START = 1e-3


def trades(step: Step) -> Tensor:
    """CE(clean) + beta·KL(p(clean) ‖ p(attacked)) (Zhang et al. 2019, equation 5); the paper's beta is 1 to 6.

    The attack maximises the same divergence from a start 0.001·N(0, 1) beside the image. The divergence is a
    plain mean over images; class weights act on the cross-entropy. Clean and attacked images pass in one batch.
    """
    adv = step.attacked()
    clean, attacked = both(step.model, step.images, step.once("adv", lambda: _divergent(step)))
    return step.cross_entropy(clean) + adv.beta * divergence(clean, attacked).mean()


def mart(step: Step) -> Tensor:
    """BCE(p(attacked), y) + beta·KL(p(clean) ‖ p(attacked))·(1 - p_y(clean)) (Wang et al. 2020, equation 11).

    BCE is -log p_y - log(1 - max of the others), so that attacked images also keep their distance from the
    runner-up; images that are wrong when clean count most in the second term (the paper's lambda is 5). The
    attack is PGD on the cross-entropy. Label smoothing, which the paper has none of, acts on -log p_y.
    """
    adv = step.attacked()
    clean, attacked = both(step.model, step.images, attack_with_pgd(step))
    own = step.labels[:, None]
    log_p = F.log_softmax(attacked, 1)
    runner_up = log_p.scatter(1, own, -torch.inf).amax(1).exp()
    target = torch.lerp(log_p.gather(1, own).squeeze(1), log_p.mean(1), step.train.label_smoothing)
    bce = -target - torch.log1p(-runner_up.clamp_max(1 - 1e-6))
    missed = 1 - F.softmax(clean, 1).gather(1, own).squeeze(1)
    return step.mean(bce) + adv.beta * (divergence(clean, attacked) * missed).mean()


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(softmax(clean) ‖ softmax(attacked)) of each image, n, in nats."""
    p = F.log_softmax(clean, 1)
    return (p.exp() * (p - F.log_softmax(attacked, 1))).sum(1)


def _divergent(step: Step) -> Tensor:
    """Images, n×C×H×W, that maximise the divergence from the model's answer to the clean ones.

    The clean answer and the first step are float32 whatever `adv.attack_precision` is: 16 bits do not tell the
    start from the image, so that its divergence, and with it the gradient's sign, would be 0 or noise.
    """
    adv = step.attacked()
    exact = replace(step, adv=adv.model_copy(update={"attack_precision": "fp32"}))
    view = attack_view(exact)
    with frozen(view), torch.no_grad(), torch.autocast(step.images.device.type, enabled=False):
        clean = view(step.images)

    def loss(logits: Tensor) -> Tensor:
        return divergence(clean, logits).sum()

    size = training_attack(adv).step_size
    start = (step.images + START * normal(step.seeds, 0, tuple(step.images.shape[1:]))).clamp(0, 1)
    first = ascend(exact, start, loss, eps=adv.eps, alpha=size, steps=1)
    return ascend(step, first, loss, eps=adv.eps, alpha=size, steps=adv.steps - 1)
