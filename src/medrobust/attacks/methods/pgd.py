"""Projected gradient descent in the Linf ball, and its one-step form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.base import check_alpha, per_image, project
from medrobust.attacks.state import Stepwise, Walk
from medrobust.core.params.base import Positive
from medrobust.core.params.hyperparameters import Count
from medrobust.core.seeds import uniform


@dataclass(frozen=True, kw_only=True)
class FGSM(Stepwise):
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015, section 4)."""

    nests: ClassVar[bool] = False  # a long step overshoots what a short one hits

    @property
    def moves(self) -> int:
        """One."""
        return 1

    def begin(self, walk: Walk, warm: Tensor) -> None:
        walk.current = walk.images

    def go(self, walk: Walk, gradient: Tensor) -> Tensor:
        radius = per_image(walk.eps)
        return project(walk.images + radius * gradient.sign(), walk.images, radius)


@dataclass(frozen=True, kw_only=True)
class PGD(Stepwise):
    """Steps along the sign of the gradient, projected back to the ball (Madry et al. 2018, section 2.1).

    Attributes:
        alpha: step size; None = 2.5·eps/steps.
        steps: gradient evaluations a restart.
        random_start: uniform in the ball; the first restart starts from `start` where a caller gives one.
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
        """The step in [0, 1] pixel units."""
        return 2.5 * self.eps / self.steps if self.alpha is None else self.alpha

    @property
    def moves(self) -> int:
        """Steps of one restart."""
        return self.steps

    @property
    def drawn(self) -> bool:
        """As `random_start` says."""
        return self.random_start

    def begin(self, walk: Walk, warm: Tensor) -> None:
        if not self.random_start:
            return
        draws = uniform(walk.seeds, walk.restart, tuple(walk.images.shape[1:])).to(walk.images.dtype)
        radius = per_image(walk.eps)
        noisy = project(walk.images + radius * (2 * draws - 1), walk.images, radius)
        walk.current = torch.where(per_image(warm), walk.current, noisy)

    def go(self, walk: Walk, gradient: Tensor) -> Tensor:
        radius = per_image(walk.eps)
        size = 2.5 / self.steps * radius if self.alpha is None else self.alpha
        return project(walk.current + size * gradient.sign(), walk.images, radius)
