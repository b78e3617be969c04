"""Objectives that balance accuracy and robustness by a Kullback-Leibler divergence."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import frozen
from medrobust.core.seeds import normal
from medrobust.training.objectives.base import Step, joint_logits
from medrobust.training.objectives.inner import ascend, attack_view, attack_with_pgd, training_attack

#: Standard deviation of the noise around the image from which the TRADES attack starts (its published code).
START = 1e-3


def trades(step: Step) -> Tensor:
    """CE(clean) + beta·KL(p(clean) ‖ p(attacked)) (Zhang et al. 2019, equation 5); the paper's beta is 1 to 6.

    The attack maximises the same divergence and starts at the image plus 0.001·N(0, 1). The divergence is a plain
    mean over images; class weights only act on the cross-entropy. Clean and attacked images form one batch.
    """
    adv = step.require_adv()
    clean, attacked = joint_logits(step.model, step.images, step.cached("adv", lambda: _maximise_divergence(step)))
    return step.cross_entropy(clean) + adv.beta * divergence(clean, attacked).mean()


def mart(step: Step) -> Tensor:
    """BCE(p(attacked), y) + beta·KL(p(clean) ‖ p(attacked))·(1 - p_y(clean)) (Wang et al. 2020, equation 11).

    BCE is -log p_y - log(1 - max of the other p), which also pushes attacked images away from the runner-up class.
    Images that are misclassified when clean count most in the second term (the paper's lambda is 5). The attack is
    PGD on the cross-entropy. Label smoothing, which the paper does not use, acts on -log p_y.
    """
    adv = step.require_adv()
    clean, attacked = joint_logits(step.model, step.images, attack_with_pgd(step))
    labels = step.labels[:, None]
    log_p = F.log_softmax(attacked, 1)
    runner_up = log_p.scatter(1, labels, -torch.inf).amax(1).exp()
    target = torch.lerp(log_p.gather(1, labels).squeeze(1), log_p.mean(1), step.train.label_smoothing)
    bce = -target - torch.log1p(-runner_up.clamp_max(1 - 1e-6))
    missed = 1 - F.softmax(clean, 1).gather(1, labels).squeeze(1)
    return step.mean(bce) + adv.beta * (divergence(clean, attacked) * missed).mean()


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(softmax(clean) ‖ softmax(attacked)) per image, n, in nats."""
    p = F.log_softmax(clean, 1)
    return (p.exp() * (p - F.log_softmax(attacked, 1))).sum(1)


def _maximise_divergence(step: Step) -> Tensor:
    """Images, n×C×H×W, that maximise the divergence from the model's output for the clean ones."""
    adv = step.require_adv()
    # 16 bits do not distinguish the start from the image: the first gradient would be 0 or noise.
    fp32_step = replace(step, adv=adv.model_copy(update={"attack_precision": "fp32"}))
    view = attack_view(fp32_step)
    with frozen(view), torch.no_grad(), torch.autocast(step.images.device.type, enabled=False):
        clean = view(step.images)

    def loss(logits: Tensor) -> Tensor:
        return divergence(clean, logits).sum()

    alpha = training_attack(adv).step_size
    start = (step.images + START * normal(step.seeds, 0, tuple(step.images.shape[1:]))).clamp(0, 1)
    first = ascend(fp32_step, start, loss, eps=adv.eps, alpha=alpha, steps=1)
    return ascend(step, first, loss, eps=adv.eps, alpha=alpha, steps=adv.steps - 1)
