"""Projected gradient descent in the Linf ball, and its one-step form."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import Attack, check_alpha, margin, project
from medrobust.attacks.random import uniform

Loss = Literal["ce", "margin"]


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015, section 4)."""

    loss: Loss = "ce"

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        _, gradient = loss_gradient(model, images, labels, self.loss)
        return project(images + self.eps * gradient.sign(), images, self.eps)


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Steps along the sign of the gradient, projected back to the ball (Madry et al. 2018, equation 2.1).

    An image that is fooled keeps the first image that fooled it and leaves the computation; the others give
    back their last iterate.

    Attributes:
        alpha: step size; None = 2.5·eps/steps.
        steps: gradient evaluations a restart.
        restarts: random starts, tried on the images that are not fooled yet.
        loss: cross-entropy, or the margin loss (the CW loss in the Linf ball).
        random_start: uniform in the ball; the first restart starts from `start` where a caller gives one.
        stop_when_fooled: whether fooled images leave (training wants the full attack: False).
        allow_weak: accept alpha·steps < eps.
    """

    alpha: float | None = None
    steps: int = 10
    restarts: int = 1
    loss: Loss = "ce"
    random_start: bool = True
    stop_when_fooled: bool = True
    allow_weak: bool = False

    def __post_init__(self) -> None:
        check_alpha(self.step_size, self.steps, self.eps, self.allow_weak)

    @property
    def step_size(self) -> float:
        """The step in [0, 1] pixel units."""
        return 2.5 * self.eps / self.steps if self.alpha is None else self.alpha

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        result = start.clone()
        left = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            warm = restart == 0 and start is not images
            begin = (
                start[left] if warm or not self.random_start else self._noise(images[left], seeds[left], restart)
            )
            found, fooled = self._descend(model, images[left], labels[left], begin)
            result[left] = found
            left = left[~fooled]
            if not len(left):
                break
        return result

    def _noise(self, images: Tensor, seeds: Tensor, restart: int) -> Tensor:
        noise = 2 * uniform(seeds, restart, tuple(images.shape[1:])).to(images.device) - 1
        return project(images + self.eps * noise, images, self.eps)

    def _descend(self, model: nn.Module, images: Tensor, labels: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
        """Run one restart; return the images and which of them fool the model."""
        result, fooled = begin.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        active = torch.arange(len(images), device=images.device)
        current = begin
        for _ in range(self.steps):
            logits, gradient = loss_gradient(model, current, labels[active], self.loss)
            if self.stop_when_fooled:
                wrong = logits.argmax(1) != labels[active]
                result[active[wrong]], fooled[active[wrong]] = current[wrong], True
                active, current, gradient = active[~wrong], current[~wrong], gradient[~wrong]
                if not len(active):
                    return result, fooled
            current = project(current + self.step_size * gradient.sign(), images[active], self.eps)
        result[active] = current
        if self.stop_when_fooled:
            with torch.no_grad():
                fooled[active] = model(current).argmax(1) != labels[active]
        return result, fooled


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logits n×K, and the gradient of each image's loss by its pixels, n×C×H×W, in float32."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = model(images)
        losses = F.cross_entropy(logits, labels, reduction="none") if loss == "ce" else margin(logits, labels)
        (gradient,) = torch.autograd.grad(losses.sum(), images)
    return logits.detach(), gradient
