"""Adversarial weight perturbation, with any objective."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from medrobust.training import distributed
from medrobust.training.objectives.base import Objective, Step
from medrobust.training.objectives.inner import untracked


@contextmanager
def perturbed_weights(step: Step, objective: Objective, gamma: float) -> Iterator[None]:
    """Inside, the weights are those near by at which the step's loss is worst (AWP, Wu et al. 2020, algorithm 1).

    Each weight matrix w moves by v = gamma·‖w‖·g/‖g‖, where g is the gradient of the whole objective at w on the
    step's attacked images, which stay the same. As in the authors' code these are the parameters named weight that
    have more than one dimension: biases, norms, layer scales, class tokens and tables of positions stay.
    Afterwards w is back to the bit. BatchNorm's running statistics do not see the extra forward pass.

    Args:
        step: the step that is being taken.
        objective: its loss.
        gamma: size relative to the weights; 0 = no perturbation.
    """
    if not gamma:
        yield
        return
    named = step.model.named_parameters()
    weights = [w for name, w in named if "weight" in name and w.ndim > 1 and w.requires_grad]
    with untracked(step.model):
        gradients = torch.autograd.grad(objective(step), weights, allow_unused=True)
    distributed.average_gradients([part for part in gradients if part is not None], len(step.images))
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                weight.add_(_worst(weight, gradient, gamma))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


def _worst(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    length = gradient.norm()
    return torch.where(length > 0, gamma * weight.norm() / length.clamp_min(1e-30), 0.0) * gradient
