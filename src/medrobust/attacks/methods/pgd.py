"""Projected gradient descent in the Linf ball, and its one-step form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import FixedStepAttack
from medrobust.attacks.projection import per_image, project
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.core.seeds import uniform


@dataclass(frozen=True, kw_only=True)
class FGSM(IterativeAttack):
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015, section 4)."""

    failure_covers_smaller_eps: ClassVar[bool] = False  # a long step may overshoot

    @property
    def num_steps(self) -> int:
        return 1

    def begin(self, state: AttackState, warm: Tensor) -> None:
        state.current = state.images

    def step(self, state: AttackState, gradient: Tensor) -> Tensor:
        radius = per_image(state.eps)
        return project(state.images + radius * gradient.sign(), state.images, radius)


@dataclass(frozen=True, kw_only=True)
class PGD(FixedStepAttack, IterativeAttack):
    """Steps along the sign of the gradient, projected back to the ball (Madry et al. 2018, section 2.1)."""

    @property
    def num_steps(self) -> int:
        return self.steps

    @property
    def has_random_start(self) -> bool:
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
