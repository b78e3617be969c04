"""The optimisation problem of a batch under attack: model, ball, target class and mask of each image."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, focus, input_gradient, margin
from medrobust.attacks.projection import Norm, ascent, per_image, project
from medrobust.attacks.regions import Region, find_mask
from medrobust.attacks.targets import COST_REMEDY, Costs, Loss, Target, attack_loss, choose_targets
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import normal, uniform

if TYPE_CHECKING:
    from medrobust.data.store import Subset

#: (logits n×K, the problem's rows, their images) -> loss per image, n
Losses = Callable[[Tensor, "Problem", Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Images to attack, n×C×H×W; every row is independent of the others.

    `targets`, n, are the classes that must be predicted; None = any wrong class. `loss_targets`, n, are the
    classes that losses lead towards: the targets, or one wrong class after the other. `mask`, bool n×1×H×W, holds
    the pixels that may change; None = all.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    seeds: Tensor
    eps: float
    norm: Norm
    targets: Tensor | None = None
    loss_targets: Tensor | None = None
    mask: Tensor | None = None

    def take(self, rows: Tensor) -> "Problem":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        parts: dict[str, Any] = {name: value[rows] for name, value in tensors.items()}
        return replace(self, model=focus(self.model, rows), **parts)

    def project(self, images: Tensor) -> Tensor:
        """Images projected onto the mask, the ball and [0, 1]."""
        return project(self.apply_mask(images), self.images, self.eps, self.norm)

    def apply_mask(self, images: Tensor) -> Tensor:
        """Images inside the mask, the clean images outside."""
        return images if self.mask is None else torch.where(self.mask, images, self.images)

    def noise(self, stream: int) -> Tensor:
        """A random image in the ball, uniform in its volume, projected onto the mask and [0, 1]."""
        shape = tuple(self.images.shape[1:])
        if self.norm == "Linf":
            shift = 2 * uniform(self.seeds, stream, shape).to(self.images) - 1
        else:
            free = self.images[0].numel()
            shift = normal(self.seeds, stream, shape).to(self.images)
            radius = uniform(self.seeds, -stream - 1, (1, 1, 1)).to(self.images) ** (1 / free)
            shift = radius * shift / per_image(shift.flatten(1).norm(dim=1))
        return self.project(self.images + self.eps * shift)

    def direction(self, stream: int) -> Tensor:
        """Random perturbations of length 1 in the norm, n×C×H×W; for Linf uniform, scaled to a maximum of 1."""
        shape = tuple(self.images.shape[1:])
        if self.norm == "L2":
            return ascent(normal(self.seeds, stream, shape).to(self.images), "L2")
        shift = 2 * uniform(self.seeds, stream, shape).to(self.images) - 1
        return shift / per_image(shift.flatten(1).abs().amax(1)).clamp_min(1e-12)

    def margins(self, logits: Tensor) -> Tensor:
        """Margin of each image, n; positive if the prediction is the target, or wrong where there is none."""
        return margin(logits, self.labels) if self.targets is None else -margin(logits, self.targets)

    def reached(self, logits: Tensor) -> Tensor:
        """Which images are predicted as the target, or wrongly where there is none, bool n."""
        predictions = logits.argmax(1)
        return predictions != self.labels if self.targets is None else predictions == self.targets

    def evaluate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`margins` and `reached` of images, both n, by one forward pass."""
        with torch.no_grad():
            logits = self.model(images)
        return self.margins(logits), self.reached(logits)

    def gradient(self, images: Tensor, loss: Loss | Losses, passes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Logits n×K, losses n, and the gradient of each loss by its image inside the mask; float32, no autocast.

        For models with random outputs, all three are means over several passes: expectation over transformation
        (EOT, Athalye, Engstrom et al. 2018).
        """

        def losses(logits: Tensor, at: Tensor) -> Tensor:
            if callable(loss):
                return loss(logits, self, at)
            return attack_loss(logits, self.labels, self.loss_targets, loss)

        results = [input_gradient(self.model, images, losses) for _ in range(passes)]
        logits, values, gradient = (torch.stack(part).mean(0) for part in zip(*results, strict=True))
        if self.mask is not None:
            gradient = gradient * self.mask
        return logits, values, gradient

    def moved(self, images: Tensor) -> Tensor:
        """Which images differ from the clean ones, bool n."""
        return (images != self.images).flatten(1).any(1)


class BestImages:
    """For each image, the version with the largest margin that an attack has evaluated."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.margins = images.new_full((len(images),), -torch.inf)
        self.reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def update(
        self, rows: Tensor, images: Tensor, margins: Tensor, reached: Tensor, *, always: bool = False
    ) -> None:
        """Replace the stored versions of some rows by better ones; `always` = by worse ones as well."""
        better = (margins > self.margins[rows]) | (reached & ~self.reached[rows]) | always
        self.images[rows[better]], self.margins[rows[better]] = images[better], margins[better]
        self.reached[rows] |= reached

    def unreached(self) -> Tensor:
        """Rows for which the attack has not succeeded."""
        return torch.nonzero(~self.reached).squeeze(1)

    def rounds(
        self, problem: Problem, numbers: Iterable[int], *, every: bool = False
    ) -> Iterator[tuple[int, Tensor, Problem]]:
        """Yield each number with the unreached rows (or `every` row) and their problem; stop when none is left."""
        for number in numbers:
            rows = torch.arange(len(self.images), device=self.images.device) if every else self.unreached()
            if not len(rows):
                return
            yield number, rows, problem.take(rows)


@dataclass(frozen=True, kw_only=True)
class TargetableAttack(Attack):
    """An attack that can be given a target class and a region.

    Attributes:
        target: a class or a rule of `targets.RULES`; None = any wrong class. A targeted attack returns the image
            with the largest margin of the target class. Images whose target is their own label stay clean.
        costs: for `most_costly`: one row per true class, one column per prediction.
        mask: the region whose pixels may change: a `regions.RegionName`, or a bool tensor n×1×H×W; None = all.
        top: for the region `gradcam`, the share of pixels with the highest importance.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    target: Target = None
    costs: Costs = None
    mask: Region = None
    top: Part = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        costs = self.costs
        if self.target == "most_costly" and (costs is None or any(len(row) != len(costs) for row in costs)):
            found = "no costs" if costs is None else "a table of costs that is not square"
            raise UserError("attack.costs", f"target most_costly with {found}", COST_REMEDY)

    def for_images(self, subset: "Subset", rows: list[int]) -> "TargetableAttack":
        """For the region `outlined`, the attack with these images' masks; without masks, a UserError."""
        if isinstance(self.mask, str) and self.mask == "outlined":
            return replace(self, mask=subset.masks(rows))
        return self

    @abstractmethod
    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """Attacked images of a problem; `start` holds the images to start from, by default `problem.images`."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        problem = Problem(model, images, labels, seeds, self.eps, self.norm)
        if self.mask is not None:
            problem = replace(problem, mask=find_mask(model, images, labels, self.mask, self.top))
        if self.target is None:
            return self.search(problem, start)
        targets = choose_targets(model, images, labels, self.target, self.costs)
        rows = torch.nonzero(targets != labels).squeeze(1)
        if not len(rows):
            return images.clone()
        part = replace(problem, targets=targets, loss_targets=targets).take(rows)
        result = images.clone()
        result[rows] = self.search(part, part.images if start is images else start[rows])
        return result
