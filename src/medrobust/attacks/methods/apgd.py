"""Auto-PGD: PGD that adapts its step size to its progress (Croce & Hein 2020, algorithm 1)."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.base import Attack
from medrobust.attacks.methods.iterative import STREAMS
from medrobust.attacks.problem import BestImages, Problem, TargetableAttack
from medrobust.attacks.projection import ascent, per_image
from medrobust.attacks.targets import Loss
from medrobust.core.errors import UserError
from medrobust.core.params.base import Count


@dataclass(frozen=True, kw_only=True)
class APGD(TargetableAttack):
    """Auto-PGD with cross-entropy, margin or DLR loss (`targets.attack_loss`), in the Linf or L2 ball.

    `steps` are gradient evaluations per restart, besides that of the start. `rho` is the share of the steps
    between two checkpoints that must raise the loss; else the step size is halved. `eot` gradients are averaged
    per step; more than one for a model with random outputs. An image stops at its first success; with
    `stop_when_fooled: false` every restart (and target) takes all its steps, and the largest margin counts.
    """

    failure_covers_smaller_eps: ClassVar[bool] = True
    loss: Loss = "ce"
    steps: Count = 100
    restarts: Count = 1
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.75
    eot: Count = 1
    stop_when_fooled: bool = True

    @property
    def cost(self) -> float:
        return (self.steps + 1) * self.restarts * self.eot

    def to_the_end(self) -> "APGD":
        return replace(self, stop_when_fooled=False)

    def gradient_attacks(self) -> list[Attack]:
        return [self]

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(start)
        for restart, rows, part in best.rounds(problem, range(self.restarts), every=not self.stop_when_fooled):
            self._run(part, start[rows] if restart == 0 else None, rows, best, restart * STREAMS)
        return best.images

    def _run(self, part: Problem, warm: Tensor | None, rows: Tensor, best: BestImages, stream: int) -> None:
        """Run one restart, from an earlier attack's result where there is one, else from a random image."""
        first = part.project(part.images + part.eps * part.direction(stream))
        if warm is not None:
            first = torch.where(per_image(part.moved(warm)), warm, first)
        _Restart(part, first, rows, best, self).run()


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """APGD towards at most `targets` wrong classes, most likely first, until the prediction is wrong.

    This is the `apgd-t` of AutoAttack (Croce & Hein 2020). It succeeds with any wrong class.
    """

    loss: Loss = "dlr"
    targets: Count = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise UserError("attack.target", f"got {self.target!r}", "Use apgd for one target; apgd_t tries all")

    @property
    def cost(self) -> float:
        """Cost for a model with ten classes."""
        return super().cost * self.targets

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(start)
        for number, classes in enumerate(wrong_classes(problem, self.targets)):
            aimed, every = replace(problem, loss_targets=classes), not self.stop_when_fooled
            for restart, rows, part in best.rounds(aimed, range(self.restarts), every=every):
                warm = start[rows] if number == restart == 0 else None
                self._run(part, warm, rows, best, number + restart * STREAMS)
        return best.images


def wrong_classes(problem: Problem, count: int) -> list[Tensor]:
    """The `count` most likely wrong classes of the clean images, most likely first: tensors of size n."""
    with torch.no_grad():
        logits = problem.model(problem.images)
    wrong = logits.scatter(1, problem.labels[:, None], -torch.inf)
    order = wrong.sort(dim=1, descending=True, stable=True).indices
    return list(order[:, : min(count, logits.shape[1] - 1)].T)


class _Restart:
    """One restart. Every tensor holds one row per image that has not stopped; `rows` are indices in `best`."""

    def __init__(self, problem: Problem, first: Tensor, rows: Tensor, best: BestImages, attack: APGD) -> None:
        self.problem, self.best, self.rows, self.attack = problem, best, rows, attack
        self.current = self.previous = first
        self.loss, self.gradient = self._evaluate()
        self.top_loss, self.top, self.top_gradient = self.loss, self.current, self.gradient
        self.step_size = first.new_full((len(first),), 2 * problem.eps)
        self.rises = torch.zeros_like(self.loss)
        self.top_loss_at_checkpoint = self.top_loss
        self.halved = torch.ones_like(self.loss, dtype=torch.bool)

    def run(self) -> None:
        """Take all steps; images for which the attack succeeds leave, unless the attack runs to the end."""
        steps = self.attack.steps
        checkpoint, period = 0, max(int(0.22 * steps), 1)
        for step in range(steps):
            if self.attack.stop_when_fooled and not self._drop_reached():
                return
            self._step(0.75 if step else 1.0)
            before = self.loss
            self.loss, self.gradient = self._evaluate()
            self.rises = self.rises + (self.loss > before)
            higher = self.loss > self.top_loss
            self.top_loss = torch.where(higher, self.loss, self.top_loss)
            self.top = torch.where(per_image(higher), self.current, self.top)
            self.top_gradient = torch.where(per_image(higher), self.gradient, self.top_gradient)
            if step + 1 == checkpoint + period:
                self._adapt_step_size(period)
                checkpoint = step + 1
                period = max(period - max(int(0.03 * steps), 1), int(0.06 * steps), 1)

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient at the current iterates, which also update `best`."""
        problem = self.problem
        logits, losses, gradient = problem.gradient(self.current, self.attack.loss, self.attack.eot)
        self.reached = problem.reached(logits)
        self.best.update(self.rows, self.current, problem.margins(logits), self.reached)
        return losses, gradient

    def _drop_reached(self) -> bool:
        """Drop images for which the attack has succeeded; return whether any image is left."""
        if self.reached.any():
            on = ~self.reached
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[on])
            self.problem = self.problem.take(on)
        return len(self.rows) > 0

    def _step(self, weight: float) -> None:
        """A projected step with this weight, plus momentum of the last step with the rest (lines 6 and 7)."""
        problem = self.problem
        ahead = problem.project(self.current + per_image(self.step_size) * ascent(self.gradient, problem.norm))
        move = weight * (ahead - self.current) + (1 - weight) * (self.current - self.previous)
        self.previous, self.current = self.current, problem.project(self.current + move)

    def _adapt_step_size(self, period: int) -> None:
        """Halve the step size where progress stalls, and return to the best iterate (conditions 1 and 2)."""
        stalled = self.rises <= self.attack.rho * period
        stalled |= ~self.halved & (self.top_loss_at_checkpoint >= self.top_loss)
        self.step_size = torch.where(stalled, self.step_size / 2, self.step_size)
        self.current = torch.where(per_image(stalled), self.top, self.current)
        self.gradient = torch.where(per_image(stalled), self.top_gradient, self.gradient)
        self.halved, self.top_loss_at_checkpoint = stalled, self.top_loss
        self.rises = torch.zeros_like(self.rises)
