"""Adversarial weight perturbation, for any objective."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medrobust.training import distributed
from medrobust.training.objectives.base import Objective, Step
from medrobust.training.objectives.inner import freeze_running_statistics


@contextmanager
def perturbed_weights(step: Step, objective: Objective, gamma: float) -> Iterator[None]:
    """Replace the weights by nearby weights that increase the loss (AWP, Wu et al. 2020, algorithm 1).

    Each weight matrix w is changed by v = gamma·‖w‖·g/‖g‖, where g is the gradient at w of the whole objective on
    the step's attacked images. The same attacked images are used for the update. As in the authors' code, only
    parameters that are named weight and have more than one dimension change: biases, norms, layer scales, class
    tokens and position embeddings do not. On exit the weights are restored bit for bit. BatchNorm's running
    statistics do not see the extra forward pass. gamma 0 is no perturbation.
    """
    if not gamma:
        yield
        return
    named = step.model.named_parameters()
    weights = [w for name, w in named if "weight" in name and w.ndim > 1 and w.requires_grad]
    with freeze_running_statistics(step.model):
        gradients = torch.autograd.grad(objective(step), weights, allow_unused=True)
    distributed.average_gradients([part for part in gradients if part is not None], len(step.images))
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                length = gradient.norm()
                factor = torch.where(length > 0, gamma * weight.norm() / length.clamp_min(1e-30), 0.0)
                weight.add_(factor * gradient)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
