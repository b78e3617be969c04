"""The contract of an attack: the author writes the maths, the base keeps it honest."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import NotNegative, check_values, reaches

if TYPE_CHECKING:
    from medrobust.data.store import Subset

Norm = Literal["Linf", "L2"]

#: Rounding that a float32 projection may leave, as a share of eps.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Hyper-parameters of an attack; the model comes with the call.

    Attributes:
        eps: radius of the ball in [0, 1] pixel units.
        norm: of the ball; the suite's.
        norms: those that the method serves.
    """

    eps: NotNegative
    norm: Norm = "Linf"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)

    def __post_init__(self) -> None:
        """Refuse what the annotations do not allow; a method with more to refuse calls this first."""
        check_values(self, "attack")

    @property
    def bound(self) -> bool:
        """Whether the method keeps to the ball by itself.

        What an unbound one (CW-L2 in a Linf suite) finds counts only where it lies inside the ball; elsewhere the
        clean image is returned.
        """
        return True

    @property
    def nests(self) -> bool:
        """Whether failing at one radius implies failing at smaller ones (iterative attacks).

        The engine tries the others at every radius.
        """
        return False

    @property
    def cost(self) -> float:
        """About how many gradient evaluations an image that is never fooled takes (a query counts a third).

        A suite runs the cheap first; an attack that does not say comes last, in the suite's order.
        """
        return math.inf

    def with_training(self, train: "Subset") -> "Attack":
        """The attack as it is used beside these training images; only one that is fitted on them differs."""
        return self

    def for_images(self, subset: "Subset", rows: list[int]) -> "Attack":
        """The attack as it meets these images of a subset; only one that needs more than their pixels differs."""
        return self

    def to_the_end(self) -> "Attack":
        """The attack with all its steps on every image; only one that ends with the first success differs."""
        return self

    @abstractmethod
    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        """Return attacked images; the model is in eval mode and its parameters need no gradient.

        An attack that goes on with some images only calls `focus(model, rows)`, so that the engine knows
        whose evaluations it counts.
        """

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
            UserError: images outside [0, 1].
            FloatingPointError: the attack returned NaN, or left the ball.
        """
        check_images(images)
        if self.eps == 0:
            return images.clone()
        with frozen(model):
            found = self.perturb(model, images, labels, seeds, images if start is None else start).detach()
        if not torch.isfinite(found).all():
            raise FloatingPointError(f"{type(self).__name__} returned a number that is not finite")
        away = distance(found, images, self.norm)
        outside = (away > self.eps * (1 + TOLERANCE) + 1e-7) | (found.flatten(1).amin(1) < 0)
        outside |= found.flatten(1).amax(1) > 1
        if self.bound and outside.any():
            raise FloatingPointError(f"{type(self).__name__} left the ball of radius {self.eps}")
        return torch.where(outside.view(-1, 1, 1, 1), images, found)


class Meter(nn.Module):
    """A model that counts what each image of a batch costs.

    Attributes:
        gradients: int64, n; passes whose image asked for a gradient.
        queries: int64, n; the other passes.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model = model
        self.gradients = torch.zeros(count, dtype=torch.int64)
        self.queries = torch.zeros(count, dtype=torch.int64)
        self.rows = torch.arange(count)

    def __getattr__(self, name: str) -> Any:
        """What the meter has not is the model's: its backbone, classes or members."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["model"], name)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; several passes of an image at once (k·n images) count k times.

        An attack that narrows its batch without `focus` is charged as if every image had been in it.
        """
        counts = self.gradients if torch.is_grad_enabled() and images.requires_grad else self.queries
        counts[self.rows] += math.ceil(len(images) / max(len(self.rows), 1))
        logits: Tensor = self.model(images)
        return logits


def focus(model: nn.Module, rows: Tensor) -> nn.Module:
    """The model for some images of the batch: `rows`, positions (int64) or a mask, are charged from here on.

    Returns:
        A view of a `Meter` that counts for these images; any other model as it is.
    """
    if not isinstance(model, Meter):
        return model
    view = Meter(model.model, 0)
    view.training = model.training
    view.gradients, view.queries, view.rows = model.gradients, model.queries, model.rows[rows.cpu()]
    return view


def project(images: Tensor, centre: Tensor, eps: float | Tensor, norm: Norm = "Linf") -> Tensor:
    """Bring images into the ball around `centre`, then into [0, 1], which cannot lead out of the ball again.

    Args:
        images, centre: n×C×H×W.
        eps: the radius, or one an image (n×1×1×1).
        norm: of the ball.
    """
    if norm == "Linf":
        return torch.minimum(torch.maximum(images, centre - eps), centre + eps).clamp(0, 1)
    shift = images - centre
    return (centre + shift * (eps / per_image(shift.flatten(1).norm(dim=1)).clamp_min(eps))).clamp(0, 1)


def distance(images: Tensor, centre: Tensor, norm: Norm = "Linf") -> Tensor:
    """How far each image lies from its centre, n."""
    lengths: Tensor = torch.linalg.vector_norm(
        (images - centre).flatten(1), torch.inf if norm == "Linf" else 2, dim=1
    )
    return lengths


def ascent(gradient: Tensor, norm: Norm = "Linf") -> Tensor:
    """Where the loss rises fastest within distance 1 of an image: the sign, or the unit vector (zero for zero)."""
    if norm == "Linf":
        return gradient.sign()
    # Scaled first, so that the squares of a tiny gradient do not vanish.
    scaled = gradient / per_image(gradient.flatten(1).abs().amax(1)).clamp_min(1e-38)
    return scaled / per_image(scaled.flatten(1).norm(dim=1)).clamp_min(1e-12)


def per_image(values: Tensor) -> Tensor:
    """Values of n images as n×1×1×1."""
    return values.view(-1, 1, 1, 1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the true one, n; positive where the answer is wrong (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def input_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits n×K, losses, and the gradient of their sum by the pixels; float32, whatever autocast is on around.

    Args:
        model: images to logits.
        images: n×C×H×W.
        loss: logits and the images that carry the gradient -> losses, n, or one number.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = model(images)
        losses = loss(logits, images)
        (gradient,) = torch.autograd.grad(losses.sum(), images)
    return logits.detach(), losses.detach(), gradient


def check_images(images: Tensor) -> None:
    """Refuse images that were normalised already.

    Raises:
        UserError: a value outside [0, 1].
    """
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        found = f"values from {low:.3g} to {high:.3g}"
        raise UserError("images", found, "Attacks take [0, 1] images; the model normalises inside")


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels that the model has no logit for.

    Raises:
        UserError: a label below 0 or from `classes` on.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        found = f"labels from {low} to {high}, the model knows {classes} classes (0 to {classes - 1})"
        raise UserError("labels", found, "Give the model that was trained on these classes")


def check_logits(logits: Tensor, allow_weak: bool = False) -> None:
    """Refuse a model whose answers no gradient attack can be believed on.

    Args:
        logits: of some images, n×K.
        allow_weak: let probabilities pass; the checklist then calls the evaluation invalid.

    Raises:
        UserError: NaN or infinity, or probabilities (their gradient vanishes where the model is sure).
    """
    broken = int((~torch.isfinite(logits)).any(1).sum())
    if broken:
        found = f"NaN or infinite outputs for {broken} of {len(logits)} images"
        raise UserError("model", found, "Train it again, or with a smaller learning rate or in fp32")
    sums = logits.sum(1)
    if not allow_weak and bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        remedy = "Leave the softmax out of the model"
        raise UserError("model", "returns probabilities, not logits", remedy)


def check_alpha(alpha: float, steps: int, eps: float, allow_weak: bool) -> None:
    """Refuse a configuration that cannot reach the radius it claims.

    Raises:
        UserError: alpha·steps < eps, unless `allow_weak`.
    """
    if not allow_weak and not reaches(alpha, steps, eps):
        found = f"alpha {alpha:g} x {steps} steps reaches {alpha * steps:g} of eps {eps:g}"
        raise UserError(
            "attack", found, "Leave alpha out (2.5·eps/steps), take more steps, or say allow_weak: true"
        )


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
