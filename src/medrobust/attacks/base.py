"""The attack contract: a method implements `perturb`, and the base class checks its inputs and results."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from medrobust.attacks.projection import Norm, distance, per_image
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.core.errors import UserError
from medrobust.core.params.base import NotNegative
from medrobust.core.params.hyperparameters import check_values, reaches

if TYPE_CHECKING:
    from medrobust.data.store import Subset


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Hyper-parameters of an attack; the model is an argument of the call.

    `eps` is the radius of the ball in [0, 1] pixel units; of a patch, its share of the pixels. The suite sets
    `norm`, one of the `norms` of the method.
    """

    eps: NotNegative
    norm: Norm = "Linf"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)

    def __post_init__(self) -> None:
        check_values(self, "attack")
        if self.norm not in self.norms:
            found = f"supports {' and '.join(self.norms)}, but the suite has {self.norm}"
            raise UserError("attack.norm", found, "Use another attack, or a suite with its norm")

    @property
    def respects_ball(self) -> bool:
        """Whether results are always inside the ball. If not, a result outside is replaced by the clean image."""
        return True

    @property
    def failure_covers_smaller_eps(self) -> bool:
        """Whether failing at one radius implies failing at smaller ones; if not, the engine tries every radius."""
        return False

    @property
    def cost(self) -> float:
        """Approximate gradient evaluations for an image that is never fooled; a query counts as a third.

        A suite runs cheap attacks first. Attacks without a known cost run last, in the suite's order.
        """
        return math.inf

    def for_classes(self, count: int) -> Self:
        """The attack for a model with this number of classes. Only attacks that count classes override this."""
        return self

    def with_training(self, train: "Subset") -> "Attack":
        """The attack with these training images. Only attacks that are fitted on images override this."""
        return self

    def for_images(self, subset: "Subset", rows: list[int]) -> "Attack":
        """The attack for these rows of a subset. Only attacks that need more than pixels override this."""
        return self

    def to_the_end(self) -> "Attack":
        """The attack with `stop_when_fooled: false`: it takes all its steps, also on images that it has fooled.

        Attacks without this field are returned unchanged. Those that look for the smallest change (FAB, DeepFool,
        CW) end at the boundary by definition, and searches that use predictions or few scores end at a success.
        """
        return self

    def gradient_attacks(self) -> list["Attack"]:
        """The attacks along gradients of the loss that this attack consists of: itself, its parts, or none."""
        return []

    @abstractmethod
    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        """Return attacked images. The model is in eval mode and its parameters require no gradient.

        An attack that continues with some images only calls `focus(model, rows)`.
        """

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, seeds: Tensor, start: Tensor | None = None
    ) -> Tensor:
        """Attack a batch.

        Args:
            model: [0, 1] images to logits. Its modes and `requires_grad` flags are restored afterwards.
            images: float, n×C×H×W in [0, 1].
            labels: int64, n; the true classes.
            seeds: int64, n. Every random number for an image is drawn from its seed.
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
            result = self.perturb(model, images, labels, seeds, images if start is None else start).detach()
        if not torch.isfinite(result).all():
            raise FloatingPointError(f"{type(self).__name__} returned a number that is not finite")
        lengths = distance(result, images, self.norm)
        outside = (lengths > self.eps * (1 + TOLERANCE) + 1e-7) | (result.flatten(1).amin(1) < 0)
        outside |= result.flatten(1).amax(1) > 1
        if self.respects_ball and outside.any():
            raise FloatingPointError(f"{type(self).__name__} left the ball of radius {self.eps}")
        return torch.where(per_image(outside), images, result)


class QueryCounter(nn.Module):
    """A model that counts forward passes per image: `gradients` need a gradient, `queries` do not (int64 n)."""

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model, self.rows = model, torch.arange(count)
        self.counts = torch.zeros(count, 2, dtype=torch.int64)  # gradients, queries

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["model"], name)

    @property
    def gradients(self) -> Tensor:
        """Forward passes of each image that were followed by a gradient, int64 n."""
        return self.counts[:, 0]

    @property
    def queries(self) -> Tensor:
        """Forward passes of each image without a gradient, int64 n."""
        return self.counts[:, 1]

    def with_rows(self, rows: Tensor) -> "QueryCounter":
        """A view that counts these images only."""
        view = QueryCounter(self.model, 0)
        view.training, view.counts, view.rows = self.training, self.counts, rows
        return view

    def forward(self, images: Tensor) -> Tensor:
        """Logits. A batch with k copies of each image counts k evaluations per image.

        An attack that shrinks its batch without `focus` is charged as if every image were still in it.
        """
        logits: Tensor = self.model(images)
        kind = 0 if torch.is_grad_enabled() and images.requires_grad else 1
        self.counts[self.rows, kind] += math.ceil(len(images) / max(len(self.rows), 1))
        return logits


def focus(model: nn.Module, rows: Tensor | slice) -> nn.Module:
    """A view of a `QueryCounter` that counts some images (indices, a bool mask or a slice); others unchanged."""
    if not isinstance(model, QueryCounter):
        return model
    return model.with_rows(model.rows[rows if isinstance(rows, slice) else rows.cpu()])


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the true one, n; positive where it is larger (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def input_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits n×K, losses, and the gradient of their sum with respect to the pixels; float32 even under autocast.

    `loss` maps logits and the images that require the gradient to losses, n, or to one number.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = model(images)
        losses = loss(logits, images)
        gradient = gradient_of(losses.sum(), images)
    return logits.detach(), losses.detach(), gradient


def gradient_of(total: Tensor, images: Tensor, *, retain: bool = False) -> Tensor:
    """Gradient of a number with respect to images; zero where the model cuts the graph (one-hot votes, bits)."""
    if not total.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(
        total, images, retain_graph=retain, allow_unused=True, materialize_grads=True
    )
    return gradient


def check_images(images: Tensor) -> None:
    """Raise a UserError if a value lies outside [0, 1], as in images that are already normalised."""
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        found = f"values from {low:.3g} to {high:.3g}"
        raise UserError("images", found, "Use images in [0, 1]; the model itself normalises them")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise a UserError if the model has no logit for a label."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        found = f"labels from {low} to {high}, but the model has {classes} classes (0 to {classes - 1})"
        raise UserError("labels", found, "Use the model that was trained on these classes")


def check_logits(logits: Tensor, allow_weak: bool = False) -> None:
    """Raise a UserError if outputs are NaN or infinite, or (unless `allow_weak`) probabilities.

    The gradient of probabilities vanishes where the model is confident.
    """
    broken = int((~torch.isfinite(logits)).any(1).sum())
    if broken:
        found = f"NaN or infinite outputs for {broken} of {len(logits)} images"
        raise UserError("model", found, "Train it again, with a smaller learning rate or in fp32")
    sums = logits.sum(1)
    if not allow_weak and bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise UserError("model", "returns probabilities, not logits", "Remove the softmax from the model")


def check_alpha(alpha: float, steps: int, eps: float, allow_weak: bool) -> None:
    """Raise a UserError if the steps cannot reach the radius (alpha·steps < eps), unless `allow_weak`."""
    if not allow_weak and not reaches(alpha, steps, eps):
        found = f"alpha {alpha:g} x {steps} steps reaches {alpha * steps:g} of eps {eps:g}"
        remedy = "Omit alpha (default 2.5·eps/steps), use more steps, or set allow_weak: true"
        raise UserError("attack", found, remedy)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without parameter gradients; restore each module's own flags afterwards."""
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
