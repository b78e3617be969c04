"""Auto-PGD: PGD that adapts its step size to its progress (Croce & Hein 2020, algorithm 1)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medrobust.attacks.problem import STREAMS, EveryWrongClass
from medrobust.attacks.projection import ascent, per_image
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.attacks.targets import Loss
from medrobust.core.params.base import Count


@dataclass(frozen=True, kw_only=True)
class APGD(IterativeAttack):
    """Auto-PGD with cross-entropy, margin or DLR loss (`targets.attack_loss`), in the Linf or L2 ball.

    `steps` are gradient evaluations per restart. `rho` is the share of the steps between two checkpoints that must
    raise the loss; else the step size is halved. `eot` gradients are averaged per step; more than one for a model
    with random outputs. The first start is at a given image where there is one, the others are random.
    """

    uses_gradient: ClassVar[bool] = True
    loss: Loss = "ce"
    steps: Count = 100
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.75
    eot: Count = 1

    @property
    def num_steps(self) -> int:
        return self.steps

    @property
    def cost(self) -> float:
        return super().cost * self.eot

    def begin(self, state: AttackState, warm: Tensor) -> None:
        stream = state.restart // self.restarts + state.restart % self.restarts * STREAMS
        first = state.project(state.images + state.radius * state.direction(stream))
        state.current = torch.where(per_image(warm), state.current, first)
        infinity, zeros = torch.full_like(state.score, torch.inf), torch.zeros_like(state.score)
        state.memory = {
            "previous": state.current, "loss": infinity, "rises": zeros, "top_loss": -infinity,
            "top": state.current, "top_gradient": torch.zeros_like(state.images), "top_loss_before": -infinity,
            "size": 2 * state.radius, "halved": torch.ones_like(state.labels, dtype=torch.bool),
        }  # fmt: skip

    def evaluate(self, state: AttackState, *, last: bool = False) -> tuple[Tensor, ...]:
        if last:
            return super().evaluate(state)
        logits, losses, gradient = state.gradient(state.current, self.loss, self.eot)
        return logits, losses, gradient

    def step(self, state: AttackState, found: tuple[Tensor, ...]) -> Tensor:
        losses, gradient = found
        memory = state.memory
        memory["rises"] = memory["rises"] + (losses > memory["loss"])
        memory["loss"] = losses
        higher = losses > memory["top_loss"]
        memory["top_loss"] = torch.where(higher, losses, memory["top_loss"])
        memory["top"] = torch.where(per_image(higher), state.current, memory["top"])
        memory["top_gradient"] = torch.where(per_image(higher), gradient, memory["top_gradient"])
        memory["top_loss_before"] = torch.where(state.steps == 0, memory["top_loss"], memory["top_loss_before"])
        current, gradient = self._adapt_step_size(state, gradient)
        # A projected step, and after the first one a quarter of the last step (lines 6 and 7).
        weight = per_image(torch.where(state.steps == 0, 1.0, 0.75).to(current))
        ahead = state.project(current + memory["size"] * ascent(gradient, state.norm))
        move = weight * (ahead - current) + (1 - weight) * (current - memory["previous"])
        memory["previous"] = current
        return state.project(current + move)

    def _adapt_step_size(self, state: AttackState, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """At a checkpoint, halve the size and go back to the best iterate if progress stalls (conditions 1, 2)."""
        memory = state.memory
        period = torch.tensor(self._periods(), device=state.steps.device)[state.steps]
        due = period > 0
        stalled = memory["rises"] <= self.rho * period
        stalled = due & (stalled | (~memory["halved"] & (memory["top_loss_before"] >= memory["top_loss"])))
        memory["size"] = torch.where(per_image(stalled), memory["size"] / 2, memory["size"])
        memory["halved"] = torch.where(due, stalled, memory["halved"])
        memory["top_loss_before"] = torch.where(due, memory["top_loss"], memory["top_loss_before"])
        memory["rises"] = torch.where(due, 0.0, memory["rises"])
        current = torch.where(per_image(stalled), memory["top"], state.current)
        return current, torch.where(per_image(stalled), memory["top_gradient"], gradient)

    def _periods(self) -> list[int]:
        """For each number of steps taken: the steps since the last checkpoint if this is one, else 0."""
        periods, checkpoint, period = [0] * (self.steps + 1), 0, max(int(0.22 * self.steps), 1)
        while checkpoint + period <= self.steps:
            checkpoint += period
            periods[checkpoint] = period
            period = max(period - max(int(0.03 * self.steps), 1), int(0.06 * self.steps), 1)
        return periods


@dataclass(frozen=True, kw_only=True)
class APGDT(EveryWrongClass, APGD):
    """APGD towards one wrong class after the other: the `apgd-t` of AutoAttack (Croce & Hein 2020)."""

    loss: Loss = "dlr"

    def begin(self, state: AttackState, warm: Tensor) -> None:
        state.loss_targets = self.aim(state, state.restart)
        super().begin(state, warm)
