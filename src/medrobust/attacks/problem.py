"""The optimisation problem of a batch under attack: model, ball, target class and mask of each image."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, focus, input_gradient, margin
from medrobust.attacks.batch_limit import BatchLimit
from medrobust.attacks.projection import Norm, ascent, per_image, project
from medrobust.attacks.regions import Region, find_mask
from medrobust.attacks.targets import COST_REMEDY, Costs, Loss, Target, attack_loss, choose_targets
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import normal, uniform

if TYPE_CHECKING:
    from medrobust.data.store import Subset

#: (logits n×K, the problem of these rows) -> loss per image, n
Losses = Callable[[Tensor, "Problem"], Tensor]
#: Offset between the random streams of two restarts, large enough that their steps share none.
STREAMS = 1 << 20


@dataclass
class Problem:
    """Images to attack, n×C×H×W; every row is independent of the others.

    `eps` is the radius (see `Attack`), one per image (n) or one for all. `targets`, n, are the classes that must
    be predicted; None = any wrong class. `loss_targets`, n, are the classes that losses lead towards: the targets,
    or one wrong class after the other. `mask`, bool n×1×H×W, holds the pixels that may change; None = all. `limit`
    splits passes into parts that fit into memory.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    seeds: Tensor
    eps: float | Tensor
    norm: Norm
    targets: Tensor | None = None
    loss_targets: Tensor | None = None
    mask: Tensor | None = None
    limit: BatchLimit | None = None

    @property
    def radius(self) -> Tensor:
        """The radius of each image's ball, n×1×1×1; for a patch 1, because its values may change by any amount."""
        if self.norm == "patch":
            return torch.ones_like(self.images[:, :1, :1, :1])
        radii = torch.as_tensor(self.eps, dtype=self.images.dtype, device=self.images.device)
        return per_image(radii.expand(len(self.images)))

    def take(self, rows: Tensor | slice) -> Self:
        """The problem of some images, given as indices, a bool mask or a slice."""

        def part(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: part(each) for name, each in value.items()}
            return value[rows] if isinstance(value, Tensor) else value

        parts = {name: part(value) for name, value in vars(self).items()}
        return replace(self, **parts | {"model": focus(self.model, rows)})

    def project(self, images: Tensor) -> Tensor:
        """Images projected onto the mask, the ball and [0, 1]."""
        return project(self.apply_mask(images), self.images, self.radius, self.norm)

    def apply_mask(self, images: Tensor) -> Tensor:
        """Images inside the mask, the clean images outside."""
        return images if self.mask is None else torch.where(self.mask, images, self.images)

    def noise(self, stream: int | Tensor) -> Tensor:
        """A random image in the ball, uniform in its volume, projected onto the mask and [0, 1]."""
        shape = tuple(self.images.shape[1:])
        if self.norm != "L2":
            shift = 2 * uniform(self.seeds, stream, shape).to(self.images) - 1
        else:
            free = self.images[0].numel()
            shift = normal(self.seeds, stream, shape).to(self.images)
            length = uniform(self.seeds, -stream - 1, (1, 1, 1)).to(self.images) ** (1 / free)
            shift = length * shift / per_image(shift.flatten(1).norm(dim=1))
        return self.project(self.images + self.radius * shift)

    def direction(self, stream: int | Tensor) -> Tensor:
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

    def logits(self, images: Tensor) -> Tensor:
        """Logits n×K, by a pass without a gradient."""

        def work(rows: slice) -> Tensor:
            with torch.no_grad():
                logits: Tensor = focus(self.model, rows)(images[rows])
            return logits

        return torch.cat(self.limit.split(len(images), work)) if self.limit else work(slice(None))

    def gradient(self, images: Tensor, loss: Loss | Losses, passes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Logits n×K, losses n, and the gradient of each loss by its image inside the mask; float32, no autocast.

        For models with random outputs, all three are means over several passes: expectation over transformation
        (EOT, Athalye, Engstrom et al. 2018).
        """
        if self.limit:
            parts = self.limit.split(
                len(images), lambda rows: self.take(rows)._gradient(images[rows], loss, passes)
            )
            logits, values, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
            return logits, values, gradient
        return self._gradient(images, loss, passes)

    def _gradient(self, images: Tensor, loss: Loss | Losses, passes: int) -> tuple[Tensor, Tensor, Tensor]:
        def losses(logits: Tensor, at: Tensor) -> Tensor:
            if callable(loss):
                return loss(logits, self)
            return attack_loss(logits, self.labels, self.loss_targets, loss)

        results = [input_gradient(self.model, images, losses) for _ in range(passes)]
        logits, values, gradient = (torch.stack(part).mean(0) for part in zip(*results, strict=True))
        return logits, values, gradient if self.mask is None else gradient * self.mask


class BestImages:
    """For each image, the version with the highest score of all that were offered.

    The score is a margin, unless the attack says otherwise; a positive one is a success. A version with the score
    -inf replaces only earlier ones with that score, and one with NaN replaces none.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.scores = images.new_full((len(images),), -torch.inf)

    def update(self, images: Tensor, scores: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """Offer versions of some rows, given as indices."""
        better = improves(scores, self.scores[rows])
        chosen = torch.arange(len(self.images), device=images.device)[rows][better]
        self.images[chosen], self.scores[chosen] = images[better], scores[better].to(self.scores)

    def rounds(
        self, problem: Problem, numbers: Iterable[int], *, every: bool = False
    ) -> Iterator[tuple[int, Tensor, Problem]]:
        """Yield each number with the rows without success (or `every` row) and their problem."""
        for number in numbers:
            rows = torch.nonzero((self.scores <= 0) | every).squeeze(1)
            if not len(rows):
                return
            yield number, rows, problem.take(rows)


def improves(scores: Tensor, earlier: Tensor) -> Tensor:
    """Which scores replace earlier ones, bool n (see `BestImages`)."""
    return (scores > earlier) | (scores.isneginf() & earlier.isneginf())


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

    def problem(
        self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, eps: float | Tensor
    ) -> Problem:
        """The problem of a batch, with the targets and masks of its images."""
        problem = Problem(model, images, labels, seeds, eps, self.norm)
        if self.mask is not None:
            problem.mask = find_mask(model, images, labels, self.mask, self.top)
        if self.target is not None:
            problem.targets = problem.loss_targets = choose_targets(model, images, labels, self.target, self.costs)
        return problem

    @abstractmethod
    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """Attacked images of a problem; `start` holds the images to start from, by default `problem.images`."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        problem = self.problem(model, images, labels, seeds, self.eps)
        if problem.targets is None:
            return self.search(problem, start)
        result, rows = images.clone(), torch.nonzero(problem.targets != labels).squeeze(1)
        if len(rows):
            result[rows] = self.search(problem.take(rows), start[rows])
        return result


@dataclass(frozen=True, kw_only=True)
class EveryWrongClass(TargetableAttack):
    """An attack towards one wrong class after the other, most likely first, at most `targets`.

    It succeeds with any wrong class.
    """

    restarts: Count = 1
    targets: Count = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            remedy = "Use apgd or fab for one target; apgd_t and fab_t try all"
            raise UserError("attack.target", f"got {self.target!r}", remedy)

    def for_classes(self, count: int) -> Self:
        return replace(self, targets=min(self.targets, count - 1))

    @property
    def starts(self) -> int:
        return self.restarts * self.targets

    def aim(self, problem: Problem, start: int | Tensor) -> Tensor:
        """The class, n, towards which start number `start` (or one number per image) leads.

        It is the label of the image where no wrong class is left.
        """
        logits = problem.logits(problem.images)
        wrong = logits.scatter(1, problem.labels[:, None], -torch.inf)
        order = wrong.sort(dim=1, descending=True, stable=True).indices
        number = torch.as_tensor(start, device=order.device).expand(len(order)) // self.restarts
        return order.gather(1, number.clamp_max(order.shape[1] - 1)[:, None]).squeeze(1)
