"""Iterated gradient steps: one general form, and the published attacks that are special cases of it.

`methods/pgd.py` holds the case that the engine and the training use most (Linf, no target, all pixels).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import Attack, FixedStepAttack
from medrobust.attacks.problem import BestImages, Losses, Problem, TargetableAttack
from medrobust.attacks.projection import Norm, ascent, per_image
from medrobust.attacks.targets import Loss, Target
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.seeds import normal, uniform

#: Offset between the random streams of two restarts, large enough that their steps share none.
STREAMS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class IteratedGradient(FixedStepAttack, TargetableAttack):
    """Steps along the gradient of a loss (`targets.attack_loss`), projected back to the ball.

    `momentum` is the decay of the accumulated gradient; 0 = none. `keep: best` returns the image with the largest
    margin of all steps and restarts, `last` the last iterate. Images for a transfer attack need all steps: set
    `stop_when_fooled` to False. `eot` gradients are averaged per step; more than one for a model with random
    outputs.
    """

    failure_covers_smaller_eps: ClassVar[bool] = True
    loss: Loss = "ce"
    restarts: Count = 1
    momentum: NotNegative = 0.0
    keep: Literal["best", "last"] = "best"
    stop_when_fooled: bool = True
    eot: Count = 1

    @property
    def cost(self) -> float:
        return self.steps * self.restarts * self.eot

    def gradient_attacks(self) -> list[Attack]:
        return [self]

    def to_the_end(self) -> "IteratedGradient":
        return replace(self, stop_when_fooled=False)

    def losses(self, problem: Problem, stream: int) -> Losses | None:
        """A loss of the subclass; None = the one that `loss` names."""
        return None

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, carried: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        """Turn the gradient at the iterates `at`, n×C×H×W, into the step's direction.

        The second value returned is `carried` in the next step, zero at first. The random numbers of `stream`
        belong to this step alone.
        """
        return gradient, carried

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(start)
        for restart, rows, part in best.rounds(problem, range(self.restarts)):
            first = part.project(start[rows])
            if self.random_start:
                warm = part.moved(first) & (restart == 0)
                first = torch.where(per_image(warm), first, part.noise(restart))
            self._ascend(problem, first, rows, best, restart * STREAMS)
        return best.images

    def _ascend(self, problem: Problem, current: Tensor, rows: Tensor, best: BestImages, stream: int) -> None:
        """Run one restart of the images in `rows`, whose first iterates are `current`."""
        velocity, carried = torch.zeros_like(current), torch.zeros_like(current)
        for step in range(self.steps):
            part = problem.take(rows)
            logits, _, gradient = part.gradient(current, self.losses(part, stream + step) or self.loss, self.eot)
            reached = part.reached(logits)
            best.update(rows, current, part.margins(logits), reached)
            on = ~reached if self.stop_when_fooled else torch.ones_like(reached)
            if not on.any():
                return
            rows, part, current = rows[on], part.take(on), current[on]
            direction, carried = self.steer(part, current, gradient[on], carried[on], stream + step)
            size = direction.flatten(1).abs().mean(1).clamp_min(torch.finfo(direction.dtype).tiny)
            velocity = self.momentum * velocity[on] + direction / per_image(size)
            current = part.project(current + self.step_size * ascent(velocity, self.norm))
        best.update(rows, current, *problem.take(rows).evaluate(current), always=self.keep == "last")


@dataclass(frozen=True, kw_only=True)
class BIM(IteratedGradient):
    """Basic iterative method (I-FGSM): no random start (Kurakin et al. 2017, section 2.2)."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    random_start: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetedBIM(BIM):
    """Targeted I-FGSM: steps towards a class, by default the least likely one (Kurakin et al. 2017, 2.3)."""

    target: Target = "least_likely"


@dataclass(frozen=True, kw_only=True)
class MIFGSM(BIM):
    """Momentum iterative FGSM (Dong et al. 2018, algorithm 1)."""

    momentum: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class PGDL2(IteratedGradient):
    """PGD in the L2 ball (Madry et al. 2018)."""

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    norm: Norm = "L2"


@dataclass(frozen=True, kw_only=True)
class CWPGD(IteratedGradient):
    """PGD on the margin loss: the objective f6 of Carlini & Wagner 2017 inside a ball, as in Madry et al. 2018."""

    loss: Loss = "margin"


@dataclass(frozen=True, kw_only=True)
class TIFGSM(MIFGSM):
    """Translation-invariant FGSM: gradients smoothed by a Gaussian, with momentum (Dong et al. 2019).

    `kernel` is the side length of the Gaussian in pixels, odd; `sigma` is half of it in standard deviations.
    """

    kernel: Count = 15
    sigma: Positive = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise UserError("attack.kernel", f"got {self.kernel}", "Use an odd number of pixels")

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, carried: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        offsets = torch.linspace(-self.sigma, self.sigma, self.kernel, dtype=at.dtype, device=at.device)
        line = (-(offsets**2) / 2).exp()
        window = torch.outer(line, line) / line.sum() ** 2
        planes = gradient.flatten(0, 1)[:, None]  # one plane per image and channel
        return F.conv2d(planes, window[None, None], padding="same").view_as(gradient), carried


@dataclass(frozen=True, kw_only=True)
class VMIFGSM(MIFGSM):
    """Variance-tuned MI-FGSM (Wang & He 2021, algorithm 1): gradients corrected by those of the neighbourhood.

    `neighbours` are sampled per step; `beta` is half the side length of the neighbourhood, in eps.
    """

    neighbours: Count = 5
    beta: NotNegative = 1.5

    @property
    def cost(self) -> float:
        return super().cost * (1 + self.neighbours)

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, carried: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(at)
        for number in range(self.neighbours):
            draw = uniform(problem.seeds, (stream + 1) * STREAMS + number, tuple(at.shape[1:])).to(at)
            near = (at + self.beta * self.eps * (2 * draw - 1)).clamp(0, 1)
            total += problem.gradient(near, self.loss, self.eot)[2]
        return gradient + carried, total / self.neighbours - gradient


@dataclass(frozen=True, kw_only=True)
class Jitter(IteratedGradient):
    """Jitter: a loss that does not depend on the scale of the logits, with output noise (Schwinn et al. 2021).

    `scale` multiplies the normalised logits before the softmax; `std` is that of the noise on the probabilities.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    scale: Positive = 10.0
    std: NotNegative = 0.1

    def losses(self, problem: Problem, stream: int) -> Losses:
        """Mean squared distance to the one-hot vector of the label (negative for a target)."""

        def jitter(logits: Tensor, part: Problem, images: Tensor) -> Tensor:
            largest = logits.abs().amax(1, keepdim=True).clamp_min(1e-12)
            probabilities = (self.scale * logits / largest).softmax(1)
            noise = normal(part.seeds, stream, (logits.shape[1],)).to(logits)
            classes = part.labels if part.loss_targets is None else part.loss_targets
            errors = (probabilities + self.std * noise - F.one_hot(classes, logits.shape[1])).square().mean(1)
            return errors if part.loss_targets is None else -errors

        return jitter
