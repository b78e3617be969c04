"""Projected gradient descent in the Linf ball, and its one-step form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import check_alpha, per_image, project
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count
from medrobust.core.seeds import uniform


@dataclass(frozen=True, kw_only=True)
class FGSM(IterativeAttack):
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015, section 4)."""

    failure_covers_smaller_eps: ClassVar[bool] = False  # a long step may overshoot

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    def begin(self, state: AttackState, warm: Tensor) -> None:
        state.current = state.images

    def step(self, state: AttackState, gradient: Tensor) -> Tensor:
        radius = per_image(state.eps)
        return project(state.images + radius * gradient.sign(), state.images, radius)


@dataclass(frozen=True, kw_only=True)
class PGD(IterativeAttack):
    """Steps along the sign of the gradient, projected back to the ball (Madry et al. 2018, section 2.1).

    Attributes:
        alpha: step size; None = 2.5·eps/steps.
        steps: gradient evaluations per restart.
        random_start: uniform in the ball. The first restart starts from `start` where a caller passes one.
        allow_weak: accept alpha·steps < eps.
    """

    alpha: Positive | None = None
    steps: Count = 10
    random_start: bool = True
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.step_size, self.steps, self.eps, self.allow_weak)

    @property
    def step_size(self) -> float:
        """Step size in [0, 1] pixel units."""
        return 2.5 * self.eps / self.steps if self.alpha is None else self.alpha

    @property
    def num_steps(self) -> int:
        """Steps of one restart."""
        return self.steps

    @property
    def has_random_start(self) -> bool:
        """Value of `random_start`."""
        return self.random_start

    def begin(self, state: AttackState, warm: Tensor) -> None:
        if not self.random_start:
            return
        draws = uniform(state.seeds, state.restart, tuple(state.images.shape[1:])).to(state.images.dtype)
        radius = per_image(state.eps)
        noisy = project(state.images + radius * (2 * draws - 1), state.images, radius)
        state.current = torch.where(per_image(warm), state.current, noisy)

    def step(self, state: AttackState, gradient: Tensor) -> Tensor:
        radius = per_image(state.eps)
        size = 2.5 / self.steps * radius if self.alpha is None else self.alpha
        return project(state.current + size * gradient.sign(), state.images, radius)
