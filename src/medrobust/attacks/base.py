"""The contract of an attack: the author writes the maths, the base keeps it honest."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from medrobust.errors import UserError

#: Rounding that a float32 projection may leave, as a share of eps.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Hyper-parameters of an attack; the model comes with the call.

    Attributes:
        eps: radius of the ball in [0, 1] pixel units.
        norm: of the ball.
        bound: whether the method keeps to the ball by itself. What an unbound one (CW-L2 in a Linf suite)
            finds counts only where it lies inside the ball; elsewhere the clean image is returned.
    """

    eps: float
    norm: ClassVar[str] = "Linf"
    bound: ClassVar[bool] = True

    @abstractmethod
    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        """Return attacked images; the model is in eval mode and its parameters need no gradient."""

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, seeds: Tensor, start: Tensor | None = None
    ) -> Tensor:
        """Attack a batch.

        Args:
            model: [0, 1] images to logits; its modes and `requires_grad` flags come back as they were.
            images: float, n×C×H×W in [0, 1].
            labels: int64, n; the true classes.
            seeds: int64, n; all that is random about an image comes from its seed, so that its result does
                not depend on its batch mates.
            start: where to start, inside the ball (default: the images).

        Returns:
            Images in [0, 1] inside the ball.

        Raises:
            UserError: images outside [0, 1], or labels outside the model's classes.
            FloatingPointError: the attack returned NaN, or left the ball.
        """
        check_images(images)
        if self.eps == 0:
            return images.clone()
        with frozen(model):
            found = self.perturb(model, images, labels, seeds, images if start is None else start).detach()
        if not torch.isfinite(found).all():
            raise FloatingPointError(f"{type(self).__name__} returned a number that is not finite")
        distance = (found - images).abs().flatten(1).amax(1)
        outside = (distance > self.eps * (1 + TOLERANCE) + 1e-7) | (found.flatten(1).amin(1) < 0)
        outside |= found.flatten(1).amax(1) > 1
        if self.bound and outside.any():
            raise FloatingPointError(f"{type(self).__name__} left the ball of radius {self.eps}")
        return torch.where(outside.view(-1, 1, 1, 1), images, found)


def project(images: Tensor, centre: Tensor, eps: float) -> Tensor:
    """The nearest images to `images` in the Linf ball around `centre` and in [0, 1]."""
    return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the true one, n; positive where the answer is wrong (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def check_images(images: Tensor) -> None:
    """Refuse images that were normalised already.

    Raises:
        UserError: a value outside [0, 1].
    """
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        found = f"values from {low:.3g} to {high:.3g}"
        raise UserError("images", found, "Attacks take [0, 1] images; the model normalises inside")


def check_alpha(alpha: float, steps: int, eps: float, allow_weak: bool) -> None:
    """Refuse a configuration that cannot reach the radius it claims.

    Raises:
        UserError: alpha·steps < eps, unless `allow_weak`.
    """
    if alpha * steps < eps * (1 - TOLERANCE) and not allow_weak:
        found = f"alpha {alpha:g} x {steps} steps reaches {alpha * steps:g} of eps {eps:g}"
        raise UserError("attack", found, "Take alpha: auto, more steps, or say allow_weak: true")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; every module's own flags afterwards."""
    modes = {module: module.training for module in model.modules()}
    needs = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in needs.items():
            parameter.requires_grad_(flag)
