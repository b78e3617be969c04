"""Auto-PGD: PGD whose step sizes come from its own progress (Croce & Hein 2020, algorithm 1)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.base import ascent, per_image
from medrobust.attacks.goals import Loss
from medrobust.attacks.methods.iterative import STREAMS
from medrobust.attacks.problem import Best, GoalAttack, Problem
from medrobust.core.errors import UserError
from medrobust.core.params.hyperparameters import Count


@dataclass(frozen=True, kw_only=True)
class APGD(GoalAttack):
    """Auto-PGD with cross-entropy, margin or DLR loss, in the Linf or L2 ball.

    Attributes:
        loss: what it raises, see `goals.objective`.
        steps: gradient evaluations a restart, after that of the start.
        restarts: random starts, tried on the images that have not reached their goal.
        rho: share of steps between two checkpoints that must raise the loss, else the step is halved.
        eot: passes whose gradients are averaged at every step; more than one for a model that answers at random.
    """

    nests: ClassVar[bool] = True
    loss: Loss = "ce"
    steps: Count = 100
    restarts: Count = 1
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.75
    eot: Count = 1

    @property
    def cost(self) -> float:
        """Gradient evaluations of all restarts."""
        return (self.steps + 1) * self.restarts * self.eot

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The best image of all restarts."""
        best = Best(start)
        for restart in range(self.restarts):
            left = best.left()
            if not len(left):
                break
            self._run(problem, start[left] if restart == 0 else None, left, best, restart * STREAMS)
        return best.images

    def _run(self, problem: Problem, warm: Tensor | None, rows: Tensor, best: Best, stream: int) -> None:
        """One restart, from where an earlier attack stood if it moved, else from a random place."""
        part = problem.take(rows)
        begin = part.project(part.images + part.eps * part.direction(stream))
        if warm is not None:
            begin = torch.where(per_image(part.moved(warm)), warm, begin)
        _Run(problem, begin, rows, best, self.loss, self.rho, self.eot).go(self.steps)


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """APGD towards one wrong class after the other, likeliest first, until any answer is wrong.

    This is no targeted attack: it is the `apgd-t` of AutoAttack (Croce & Hein 2020).

    Attributes:
        targets: classes to try; all wrong ones where there are fewer.
    """

    loss: Loss = "dlr"
    targets: Count = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise UserError("attack.target", f"got {self.target!r}", "apgd takes a target; apgd_t tries them all")

    @property
    def cost(self) -> float:
        """As if all targets were tried (a model of ten classes)."""
        return super().cost * self.targets

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        """The best image of all targets."""
        best = Best(start)
        for rank, aims in enumerate(wrong_classes(problem, self.targets)):
            for restart in range(self.restarts):
                left = best.left()
                if not len(left):
                    return best.images
                warm = start[left] if rank == restart == 0 else None
                self._run(problem.aimed(aims), warm, left, best, rank + restart * STREAMS)
        return best.images


def wrong_classes(problem: Problem, count: int) -> list[Tensor]:
    """The `count` likeliest wrong classes of the clean images, likeliest first: each n."""
    with torch.no_grad():
        logits = problem.model(problem.images)
    wrong = logits.scatter(1, problem.labels[:, None], -torch.inf)
    order = wrong.sort(dim=1, descending=True, stable=True).indices
    return list(order[:, : min(count, logits.shape[1] - 1)].T)


class _Run:
    """One restart; every tensor holds one row an image that is still in it.

    Args:
        problem: all images.
        begin: where those of `rows` start.
        rows: which images of the problem these are.
        best: where the result is noted.
        loss, rho, eot: as in `APGD`.
    """

    def __init__(
        self, problem: Problem, begin: Tensor, rows: Tensor, best: Best, loss: Loss, rho: float, eot: int = 1
    ) -> None:
        self.problem, self.best, self.rows, self.rho, self.kind = problem.take(rows), best, rows, rho, loss
        self.eot = eot
        self.current = self.before = begin
        self.loss, self.gradient = self._look()
        self.high, self.high_at, self.high_gradient = self.loss, self.current, self.gradient
        self.step = begin.new_full((len(begin),), 2 * problem.eps)
        self.rises = torch.zeros_like(self.loss)
        self.high_at_check = self.high
        self.halved = torch.ones_like(self.loss, dtype=torch.bool)

    def go(self, steps: int) -> None:
        """Walk; images that reach their goal leave."""
        checkpoint, period = 0, max(int(0.22 * steps), 1)
        for step in range(steps):
            if not self._drop_reached():
                return
            self._move(0.75 if step else 1.0)
            previous = self.loss
            self.loss, self.gradient = self._look()
            self.rises = self.rises + (self.loss > previous)
            higher = self.loss > self.high
            self.high = torch.where(higher, self.loss, self.high)
            self.high_at = torch.where(per_image(higher), self.current, self.high_at)
            self.high_gradient = torch.where(per_image(higher), self.gradient, self.high_gradient)
            if step + 1 == checkpoint + period:
                self._check(period)
                checkpoint = step + 1
                period = max(period - max(int(0.03 * steps), 1), int(0.06 * steps), 1)

    def _look(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient where the images stand, noted in `best`."""
        logits, losses, gradient = self.problem.gradient(self.current, self.kind, self.eot)
        problem = self.problem
        self.reached = problem.reached(logits)
        self.best.see(self.rows, self.current, problem.margins(logits), self.reached)
        return losses, gradient

    def _drop_reached(self) -> bool:
        """Whether any image is left."""
        if self.reached.any():
            on = ~self.reached
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[on])
            self.problem = self.problem.take(on)
        return len(self.rows) > 0

    def _move(self, share: float) -> None:
        """A projected step, then `share` of the way there and the rest along the last move (lines 6 and 7)."""
        problem = self.problem
        ahead = problem.project(self.current + per_image(self.step) * ascent(self.gradient, problem.norm))
        move = share * (ahead - self.current) + (1 - share) * (self.current - self.before)
        self.before, self.current = self.current, problem.project(self.current + move)

    def _check(self, period: int) -> None:
        """Halve the step where progress stalls, and go back to the best place (conditions 1 and 2)."""
        stuck = self.rises <= self.rho * period
        stuck |= ~self.halved & (self.high_at_check >= self.high)
        self.step = torch.where(stuck, self.step / 2, self.step)
        self.current = torch.where(per_image(stuck), self.high_at, self.current)
        self.gradient = torch.where(per_image(stuck), self.high_gradient, self.gradient)
        self.halved, self.high_at_check = stuck, self.high
        self.rises = torch.zeros_like(self.rises)
