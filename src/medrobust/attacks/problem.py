"""One batch under attack: the model, the ball and the goal of each image, and what a search asks of them."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import (
    Attack,
    Norm,
    ascent,
    distance,
    focus,
    input_gradient,
    margin,
    per_image,
    project,
)
from medrobust.attacks.goals import Costs, Loss, Target, check_goal, choose_targets, objective
from medrobust.attacks.regions import Region, find_region
from medrobust.core.params.hyperparameters import Part
from medrobust.core.seeds import normal, uniform

if TYPE_CHECKING:
    from medrobust.data.store import Subset

#: logits n×K, the attacked problem's rows, the images they belong to -> the loss of each image, n
Losses = Callable[[Tensor, "Problem", Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Images to attack; every row stands for itself.

    Attributes:
        model: [0, 1] images to logits, in eval mode.
        images: the clean images, n×C×H×W.
        labels: true classes, n.
        seeds: n.
        eps, norm: the ball.
        targets: the class that must be reached, n; None: any wrong answer will do.
        aim: the class that losses lead towards, n (the targets, or one wrong class after the other).
        region: where pixels may change, bool n×1×H×W; None: everywhere.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    seeds: Tensor
    eps: float
    norm: Norm
    targets: Tensor | None = None
    aim: Tensor | None = None
    region: Tensor | None = None

    def take(self, rows: Tensor) -> "Problem":
        """The same for some rows."""

        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows]

        return Problem(
            focus(self.model, rows), self.images[rows], self.labels[rows], self.seeds[rows], self.eps, self.norm,
            some(self.targets), some(self.aim), some(self.region),
        )  # fmt: skip

    def copies(self, count: int) -> "Problem":
        """One image `count` times; the model is charged for the one."""
        rows = torch.zeros(count, dtype=torch.int64, device=self.labels.device)
        return replace(self.take(rows), model=self.model)

    def aimed(self, aim: Tensor) -> "Problem":
        """The same with losses that lead towards these classes."""
        return replace(self, aim=aim)

    def project(self, images: Tensor) -> Tensor:
        """Images inside the region, the ball and [0, 1]."""
        return project(self.confine(images), self.images, self.eps, self.norm)

    def confine(self, images: Tensor) -> Tensor:
        """Images inside the region, the clean ones outside of it."""
        return images if self.region is None else torch.where(self.region, images, self.images)

    def noise(self, stream: int) -> Tensor:
        """A random image in the ball (and region), uniform in its volume; clipped to [0, 1]."""
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
        """Random changes of length 1 in the norm, n×C×H×W (Linf: the largest of uniform ones is 1)."""
        shape = tuple(self.images.shape[1:])
        if self.norm == "L2":
            return ascent(normal(self.seeds, stream, shape).to(self.images), "L2")
        shift = 2 * uniform(self.seeds, stream, shape).to(self.images) - 1
        return shift / per_image(shift.flatten(1).abs().amax(1)).clamp_min(1e-12)

    def margins(self, logits: Tensor) -> Tensor:
        """How far beyond the goal each image is, n: positive where it is reached."""
        return margin(logits, self.labels) if self.targets is None else -margin(logits, self.targets)

    def reached(self, logits: Tensor) -> Tensor:
        """Which images have what the attack wants, bool n."""
        answer = logits.argmax(1)
        return answer != self.labels if self.targets is None else answer == self.targets

    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Margins and which images reach the goal, both n; one forward pass."""
        with torch.no_grad():
            logits = self.model(images)
        return self.margins(logits), self.reached(logits)

    def gradient(self, images: Tensor, loss: Loss | Losses, passes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Logits n×K, losses n, and each loss's gradient by its image inside the region; float32, no autocast.

        Of a model that answers at random the mean over some passes: expectation over transformation (EOT,
        Athalye, Engstrom et al. 2018).
        """

        def losses(logits: Tensor, at: Tensor) -> Tensor:
            return loss(logits, self, at) if callable(loss) else objective(logits, self.labels, self.aim, loss)

        answers = [input_gradient(self.model, images, losses) for _ in range(passes)]
        logits, found, gradient = (torch.stack(part).mean(0) for part in zip(*answers, strict=True))
        if self.region is not None:
            gradient = gradient * self.region
        return logits, found, gradient

    def moved(self, images: Tensor) -> Tensor:
        """Which images differ from the clean ones, bool n."""
        return (images != self.images).flatten(1).any(1)

    def distance(self, images: Tensor) -> Tensor:
        """From the clean images, n."""
        return distance(images, self.images, self.norm)


class Best:
    """The best place that each image has seen: its margin is highest there.

    Args:
        images: where they begin, n×C×H×W.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.margins = images.new_full((len(images),), -torch.inf)
        self.reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def see(self, rows: Tensor, images: Tensor, margins: Tensor, reached: Tensor, *, always: bool = False) -> None:
        """Note where the images of some rows stand; `always` = also where they stood better before."""
        better = (margins > self.margins[rows]) | (reached & ~self.reached[rows]) | always
        self.images[rows[better]], self.margins[rows[better]] = images[better], margins[better]
        self.reached[rows] |= reached

    def left(self) -> Tensor:
        """Rows that have not reached their goal."""
        return torch.nonzero(~self.reached).squeeze(1)


@dataclass(frozen=True, kw_only=True)
class GoalAttack(Attack):
    """An attack on a goal and a region.

    Attributes:
        target: a class or a rule of `goals.RULES`; None: any wrong answer. A targeted attack gives back the
            image with the best chance of the target class; images whose target is their own label stay clean.
        costs: for `most_costly`: a row a true class, a column an answer.
        mask: where pixels may change: a `regions.Rule`, or a bool tensor n×1×H×W; None: everywhere.
        top: with mask `gradcam`, the share of pixels of highest importance.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    target: Target = None
    costs: Costs = None
    mask: Region = None
    top: Part = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_goal(self.target, self.costs)

    def for_images(self, subset: "Subset", rows: list[int]) -> "GoalAttack":
        """With mask `outlined`, the attack that is confined to these images' outlines.

        Raises:
            UserError: the images have none.
        """
        if isinstance(self.mask, str) and self.mask == "outlined":
            return replace(self, mask=subset.masks(rows))
        return self

    @abstractmethod
    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """Attacked images for a problem; `start` is `problem.images` unless the caller gives a better place."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        problem = Problem(model, images, labels, seeds, self.eps, self.norm)
        if self.mask is not None:
            region = find_region(model, images, labels, self.mask, self.top)
            problem = replace(problem, region=region)
        if self.target is None:
            return self.search(problem, start)
        targets = choose_targets(model, images, labels, self.target, self.costs)
        rows = torch.nonzero(targets != labels).squeeze(1)
        if not len(rows):
            return images.clone()
        part = replace(problem, targets=targets, aim=targets).take(rows)
        result = images.clone()
        result[rows] = self.search(part, part.images if start is images else start[rows])
        return result
