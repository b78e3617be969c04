"""Iterated gradient steps: one general form, and the published attacks that are settings of it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medrobust.attacks.base import check_alpha
from medrobust.attacks.problem import STREAMS, Losses, Problem
from medrobust.attacks.projection import Norm, ascent, per_image
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.attacks.targets import Loss, Target
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count, NotNegative, Positive
from medrobust.core.seeds import normal, uniform


@dataclass(frozen=True, kw_only=True)
class IteratedGradient(IterativeAttack):
    """Steps along the gradient of a loss (`targets.attack_loss`), projected back to the ball.

    Attributes:
        steps: gradient evaluations per restart.
        alpha: step size; None = 2.5·eps/steps.
        allow_weak: accepts alpha·steps < eps.
        random_start: whether starts are uniform in the ball; the first is at a given image where there is one.
        momentum: decay of the accumulated gradient; 0 = none.
        eot: gradients that are averaged per step; more than one for a model with random outputs.
    """

    uses_gradient: ClassVar[bool] = True
    alpha: Positive | None = None
    steps: Count = 10
    random_start: bool = True
    allow_weak: bool = False
    loss: Loss = "ce"
    momentum: NotNegative = 0.0
    eot: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.step_size, self.steps, self.reach, self.allow_weak)

    @property
    def step_size(self) -> float:
        """Step size at the radius `eps`, in [0, 1] pixel units."""
        return 2.5 * self.reach / self.steps if self.alpha is None else self.alpha

    @property
    def reach(self) -> float:
        """The distance that all steps together must be able to cover, in [0, 1] pixel units."""
        return self.eps

    @property
    def num_steps(self) -> int:
        return self.steps

    @property
    def has_random_start(self) -> bool:
        return self.random_start

    @property
    def cost(self) -> float:
        return super().cost * self.eot

    def begin(self, state: AttackState, warm: Tensor) -> None:
        if self.random_start:
            state.current = torch.where(per_image(warm), state.current, state.noise(state.restart))
        if self.momentum:
            state.memory["velocity"] = torch.zeros_like(state.images)

    def losses(self, state: AttackState) -> Losses | Loss:
        """The loss whose gradient is followed."""
        return self.loss

    def evaluate(self, state: AttackState, *, last: bool = False) -> tuple[Tensor, ...]:
        if last:
            return super().evaluate(state)
        logits, _, gradient = state.gradient(state.current, self.losses(state), self.eot)
        return logits, gradient

    def steer(self, state: AttackState, gradient: Tensor) -> Tensor:
        """Turn the gradient at the current iterates, n×C×H×W, into the direction of the step."""
        return gradient

    def step(self, state: AttackState, found: tuple[Tensor, ...]) -> Tensor:
        direction = self.steer(state, found[0])
        if self.momentum:
            size = direction.flatten(1).abs().mean(1).clamp_min(torch.finfo(direction.dtype).tiny)
            direction = self.momentum * state.memory["velocity"] + direction / per_image(size)
            state.memory["velocity"] = direction
        size_of_step = 2.5 / self.steps * state.radius if self.alpha is None else self.alpha
        return state.project(state.current + size_of_step * ascent(direction, self.norm))


@dataclass(frozen=True, kw_only=True)
class FGSM(IteratedGradient):
    """One step of size eps from the clean image along the gradient's sign (Goodfellow et al. 2015, section 4).

    In L2 the step follows the gradient itself.
    """

    failure_covers_smaller_eps: ClassVar[bool] = False  # a long step may overshoot
    steps: Literal[1] = 1
    random_start: Literal[False] = False

    def begin(self, state: AttackState, warm: Tensor) -> None:
        super().begin(state, warm)
        state.current = state.images


@dataclass(frozen=True, kw_only=True)
class PGD(IteratedGradient):
    """Steps along the sign of the gradient, from a random start (Madry et al. 2018, section 2.1)."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)


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

    def steer(self, state: AttackState, gradient: Tensor) -> Tensor:
        offsets = torch.linspace(
            -self.sigma, self.sigma, self.kernel, dtype=gradient.dtype, device=gradient.device
        )
        line = (-(offsets**2) / 2).exp()
        window = torch.outer(line, line) / line.sum() ** 2
        planes = gradient.flatten(0, 1)[:, None]  # one plane per image and channel
        return F.conv2d(planes, window[None, None], padding="same").view_as(gradient)


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

    def begin(self, state: AttackState, warm: Tensor) -> None:
        super().begin(state, warm)
        state.memory["variance"] = torch.zeros_like(state.images)

    def steer(self, state: AttackState, gradient: Tensor) -> Tensor:
        total = torch.zeros_like(gradient)
        for number in range(self.neighbours):
            draw = uniform(state.seeds, (state.stream + 1) * STREAMS + number, tuple(total.shape[1:])).to(total)
            near = (state.current + self.beta * state.radius * (2 * draw - 1)).clamp(0, 1)
            total += state.gradient(near, self.loss, self.eot)[2]
        direction = gradient + state.memory["variance"]
        state.memory["variance"] = total / self.neighbours - gradient
        return direction


@dataclass(frozen=True, kw_only=True)
class Jitter(IteratedGradient):
    """Jitter: a loss that does not depend on the scale of the logits, with output noise (Schwinn et al. 2021).

    `scale` multiplies the normalised logits before the softmax; `std` is that of the noise on the probabilities.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    scale: Positive = 10.0
    std: NotNegative = 0.1

    def losses(self, state: AttackState) -> Losses:
        """Mean squared distance to the one-hot vector of the label (negative for a target)."""

        def jitter(logits: Tensor, part: Problem) -> Tensor:
            largest = logits.abs().amax(1, keepdim=True).clamp_min(1e-12)
            probabilities = (self.scale * logits / largest).softmax(1)
            assert isinstance(part, AttackState)
            noise = normal(part.seeds, part.stream, (logits.shape[1],)).to(logits)
            classes = part.labels if part.loss_targets is None else part.loss_targets
            errors = (probabilities + self.std * noise - F.one_hot(classes, logits.shape[1])).square().mean(1)
            return errors if part.loss_targets is None else -errors

        return jitter
