"""The family of iterated gradient steps: one general form, and the published attacks that are settings of it.

`attacks.pgd` holds the special case that the engine and the training use most (Linf, any wrong answer, every
pixel). Here are the rest: momentum, L2, targets, regions, smoothed and variance-tuned gradients.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import Norm, ascent, check_alpha, per_image
from medrobust.attacks.goals import Loss, Target
from medrobust.attacks.problem import Best, GoalAttack, Losses, Problem
from medrobust.core.errors import UserError
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count, NotNegative
from medrobust.core.seeds import normal, uniform

#: Far enough apart that no two steps of any restart share a stream of random numbers.
STREAMS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Iterative(GoalAttack):
    """Steps along the gradient, projected back to the ball; each image keeps the best place that it saw.

    Without momentum, random start and restarts it is the basic iterative method; with them PGD (Madry et al.
    2018), with `momentum` MI-FGSM (Dong et al. 2018).

    Attributes:
        loss: what it raises, see `goals.objective`.
        alpha: step size; None = 2.5·eps/steps.
        steps: gradient evaluations a restart.
        restarts: random starts, tried on the images that have not reached their goal.
        momentum: decay of the accumulated gradient; 0 = none.
        random_start: uniform in the ball; the first restart starts from `start` where a caller gives one.
        keep: `best` = the image with the best margin of all steps and restarts; `last` = the last step.
        stop_when_fooled: whether images that reach their goal leave (transfer wants them to go on: False).
        eot: passes whose gradients are averaged at every step; more than one for a model that answers at random.
        allow_weak: accept alpha·steps < eps.
    """

    nests: ClassVar[bool] = True
    loss: Loss = "ce"
    alpha: Positive | None = None
    steps: Count = 10
    restarts: Count = 1
    momentum: NotNegative = 0.0
    random_start: bool = True
    keep: Literal["best", "last"] = "best"
    stop_when_fooled: bool = True
    eot: Count = 1
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.step_size, self.steps, self.eps, self.allow_weak)

    @property
    def step_size(self) -> float:
        """The step in [0, 1] pixel units."""
        return 2.5 * self.eps / self.steps if self.alpha is None else self.alpha

    @property
    def cost(self) -> float:
        """Gradient evaluations of all restarts."""
        return self.steps * self.restarts * self.eot

    def to_the_end(self) -> "Iterative":
        """The attack with all its steps on every image, whether it has reached its goal or not."""
        return replace(self, stop_when_fooled=False)

    def losses(self, problem: Problem, stream: int) -> Losses | None:
        """A loss of its own; None: the one that `loss` names."""
        return None

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, memory: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        """Turn the gradient (n×C×H×W) into the direction to take; `memory` is handed on to the next step."""
        return gradient, memory

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The best image of all restarts."""
        best = Best(start)
        for restart in range(self.restarts):
            left = best.left()
            if not len(left):
                break
            part = problem.take(left)
            begin = part.project(start[left])
            if self.random_start:
                warm = part.moved(begin) & (restart == 0)
                begin = torch.where(per_image(warm), begin, part.noise(restart))
            self._descend(problem, begin, left, best, restart * STREAMS)
        return best.images

    def _descend(self, problem: Problem, current: Tensor, rows: Tensor, best: Best, stream: int) -> None:
        """One restart of the images in `rows`, which stand at `current`."""
        velocity, memory = torch.zeros_like(current), torch.zeros_like(current)
        for step in range(self.steps):
            part = problem.take(rows)
            logits, _, gradient = part.gradient(current, self.losses(part, stream + step) or self.loss, self.eot)
            reached = part.reached(logits)
            best.see(rows, current, part.margins(logits), reached)
            on = ~reached if self.stop_when_fooled else torch.ones_like(reached)
            if not on.any():
                return
            rows, part, current = rows[on], part.take(on), current[on]
            direction, memory = self.steer(part, current, gradient[on], memory[on], stream + step)
            size = direction.flatten(1).abs().mean(1).clamp_min(torch.finfo(direction.dtype).tiny)
            velocity = self.momentum * velocity[on] + direction / per_image(size)
            current = part.project(current + self.step_size * ascent(velocity, self.norm))
        best.see(rows, current, *problem.take(rows).judge(current), always=self.keep == "last")


@dataclass(frozen=True, kw_only=True)
class BIM(Iterative):
    """Basic iterative method, I-FGSM: no random start (Kurakin et al. 2017, section 2.2)."""

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
class PGDL2(Iterative):
    """PGD in the L2 ball (Madry et al. 2018)."""

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    norm: Norm = "L2"


@dataclass(frozen=True, kw_only=True)
class CWPGD(Iterative):
    """PGD on the margin loss: the objective f6 of Carlini & Wagner 2017 inside a ball, as in Madry et al. 2018."""

    loss: Loss = "margin"


@dataclass(frozen=True, kw_only=True)
class TIFGSM(MIFGSM):
    """Translation-invariant FGSM: gradients smoothed by a Gaussian (Dong et al. 2019), with momentum.

    Attributes:
        kernel: side of the Gaussian in pixels, odd.
        sigma: the kernel's half side in standard deviations.
    """

    kernel: Count = 15
    sigma: Positive = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise UserError("attack.kernel", f"got {self.kernel}", "Give an odd number of pixels")

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, memory: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        place = torch.linspace(-self.sigma, self.sigma, self.kernel, dtype=at.dtype, device=at.device)
        line = (-(place**2) / 2).exp()
        window = torch.outer(line, line) / line.sum() ** 2
        planes = gradient.flatten(0, 1)[:, None]  # every channel by itself, however many there are
        return F.conv2d(planes, window[None, None], padding="same").view_as(gradient), memory


@dataclass(frozen=True, kw_only=True)
class VMIFGSM(MIFGSM):
    """Variance-tuned MI-FGSM (Wang & He 2021, algorithm 1): gradients corrected by those of the neighbourhood.

    Attributes:
        neighbours: sampled around each step.
        beta: side of the neighbourhood in eps.
    """

    neighbours: Count = 5
    beta: NotNegative = 1.5

    @property
    def cost(self) -> float:
        """Each step looks at its neighbours too."""
        return super().cost * (1 + self.neighbours)

    def steer(
        self, problem: Problem, at: Tensor, gradient: Tensor, memory: Tensor, stream: int
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(at)
        for number in range(self.neighbours):
            draw = uniform(problem.seeds, (stream + 1) * STREAMS + number, tuple(at.shape[1:])).to(at)
            near = (at + self.beta * self.eps * (2 * draw - 1)).clamp(0, 1)
            total += problem.gradient(near, self.loss, self.eot)[2]
        return gradient + memory, total / self.neighbours - gradient


@dataclass(frozen=True, kw_only=True)
class Jitter(Iterative):
    """Jitter: a loss blind to the scale of the logits, with noise on its outputs (Schwinn et al. 2021).

    Attributes:
        scale: of the normalised logits before the softmax.
        std: of the Gaussian noise on the probabilities.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    scale: Positive = 10.0
    std: NotNegative = 0.1

    def losses(self, problem: Problem, stream: int) -> Losses:
        """The mean squared distance to the label's (or target's) one-hot vector."""

        def jitter(logits: Tensor, part: Problem, images: Tensor) -> Tensor:
            largest = logits.abs().amax(1, keepdim=True).clamp_min(1e-12)
            chances = (self.scale * logits / largest).softmax(1)
            noise = normal(part.seeds, stream, (logits.shape[1],)).to(logits)
            wanted = part.labels if part.aim is None else part.aim
            errors = (chances + self.std * noise - F.one_hot(wanted, logits.shape[1])).square().mean(1)
            return errors if part.aim is None else -errors

        return jitter
