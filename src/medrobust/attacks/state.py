"""Iterative attacks: a method implements one step, and the engine decides which images take it."""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, focus, input_gradient, margin
from medrobust.attacks.projection import per_image
from medrobust.attacks.targets import attack_loss
from medrobust.core.params.base import Count

Loss = Literal["ce", "margin"]


@dataclass
class AttackState:
    """State of a batch under an iterative attack; row i of every tensor belongs to image i.

    The clean `images` and the iterates `current`, `origin` (the first) and `best` (the evaluated one with the
    largest margin) are n×C×H×W in [0, 1]. `score`, n, is the margin of `best`, -inf before the first evaluation,
    and `pred` its predicted class; `earlier_score` is the score some steps ago (used by the engine). `eps`, n, has
    each image's radius, `restart` the number of its restart, from 0, and `steps` the steps taken. Labels, seeds,
    `restart`, `steps` and `pred` are int64.
    """

    images: Tensor
    labels: Tensor
    seeds: Tensor
    eps: Tensor
    restart: Tensor
    steps: Tensor
    current: Tensor
    origin: Tensor
    best: Tensor
    score: Tensor
    earlier_score: Tensor
    pred: Tensor

    @classmethod
    def initial(
        cls, images: Tensor, labels: Tensor, seeds: Tensor, eps: float | Tensor, restart: int, start: Tensor
    ) -> "AttackState":
        """State of images whose first iterates are `start`, n×C×H×W, before any step."""
        radii = torch.as_tensor(eps, dtype=images.dtype, device=images.device).expand(len(images))
        zeros = torch.zeros_like(labels)
        score = torch.full_like(radii, -torch.inf)
        return cls(images, labels, seeds, radii, zeros + restart, zeros, start, start, start, score, score, labels)

    def take(self, rows: Tensor | slice) -> "AttackState":
        """The state of some images, given as indices, a bool mask or a slice."""
        return AttackState(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, other: "AttackState") -> "AttackState":
        """The state of these images followed by those of `other`."""
        pairs = {f.name: [getattr(self, f.name), getattr(other, f.name)] for f in fields(self)}
        return AttackState(**{name: torch.cat(pair) for name, pair in pairs.items()})

    def update_best(self, logits: Tensor) -> None:
        """Store the current iterates (with these logits, n×K) whose margin is larger than that of earlier ones."""
        margins = margin(logits, self.labels)
        better = margins > self.score
        self.best = torch.where(per_image(better), self.current, self.best)
        self.score = torch.where(better, margins, self.score)
        self.pred = torch.where(better, logits.argmax(1), self.pred)


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack):
    """An attack that repeats two operations: evaluate the current iterate, then take a step.

    The result of a fooled image is the first iterate that fools the model; the image is then not evaluated again.
    The result of any other image is the evaluated iterate with the largest margin. A new attack defines
    `num_steps` and `step`, and overrides `begin` if it does not start at the given image.

    Attributes:
        restarts: number of starts; later ones are tried on images that are not fooled yet.
        stop_when_fooled: whether fooled images stop. Training needs all steps and the last iterate: False.
        loss: maximised by the gradient: cross-entropy, or the margin (the CW loss in the Linf ball).
    """

    failure_covers_smaller_eps: ClassVar[bool] = True
    restarts: Count = 1
    stop_when_fooled: bool = True
    loss: Loss = "ce"
    #: Whether an evaluation computes the gradient. If not, it is a query.
    uses_gradient: ClassVar[bool] = True

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps of one restart. The last iterate is evaluated as well, without a gradient."""

    @property
    def has_random_start(self) -> bool:
        return False

    @abstractmethod
    def step(self, state: AttackState, gradient: Tensor) -> Tensor:
        """The next iterate of each image, n×C×H×W inside its ball. The state must not be changed.

        Args:
            state: after `state.steps` steps; `best` and `score` include the current iterates.
            gradient: of the loss at the current iterates, n×C×H×W; empty for attacks without gradients.
        """

    def begin(self, state: AttackState, warm: Tensor) -> None:
        """Replace `state.current`, the images from which the caller wants to start, by the first iterates.

        Where `warm` (bool, n), an attack with random starts begins exactly there; elsewhere it may draw one.
        """

    def evaluate(self, model: nn.Module, state: AttackState) -> tuple[Tensor, Tensor]:
        """Logits n×K of the current iterates, and the gradient that `step` takes."""
        if self.uses_gradient:
            return loss_gradient(model, state.current, state.labels, self.loss)
        with torch.no_grad():
            return model(state.current), torch.empty(len(state.images), 0, device=state.images.device)

    @property
    def cost(self) -> float:
        return self.restarts * self.num_steps / (1 if self.uses_gradient else 3)

    def gradient_attacks(self) -> list[Attack]:
        return [self] if self.uses_gradient else []

    def to_the_end(self) -> "IterativeAttack":
        return replace(self, stop_when_fooled=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        result = start.clone()
        rows = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            first = start if restart == 0 else images
            state = AttackState.initial(images[rows], labels[rows], seeds[rows], self.eps, restart, first[rows])
            self.begin(state, torch.full_like(rows, first is not images, dtype=torch.bool))
            result[rows], fooled = self._run(focus(model, rows), state)
            rows = rows[~fooled]
            if not len(rows):
                break
        return result

    def _run(self, model: nn.Module, state: AttackState) -> tuple[Tensor, Tensor]:
        """Run one restart; return the attacked images, and which of them fool the model."""
        result = state.current.clone()
        fooled = torch.zeros(len(result), dtype=torch.bool, device=result.device)
        active = torch.arange(len(result), device=result.device)
        for _ in range(self.num_steps):
            logits, gradient = self.evaluate(model, state)
            state.update_best(logits)
            if self.stop_when_fooled and bool((wrong := state.score > 0).any()):
                result[active[wrong]], fooled[active[wrong]] = state.current[wrong], True
                model, state = focus(model, ~wrong), state.take(~wrong)
                active, gradient = active[~wrong], gradient[~wrong]
                if not len(active):
                    return result, fooled
            state.current, state.steps = self.step(state, gradient), state.steps + 1
        if self.stop_when_fooled:
            with torch.no_grad():
                state.update_best(model(state.current))
            fooled[active] = state.score > 0
        result[active] = state.best if self.stop_when_fooled else state.current
        return result, fooled


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logits n×K, and the gradient of each image's loss with respect to its pixels, n×C×H×W, in float32."""
    logits, _, gradient = input_gradient(model, images, lambda logits, _: attack_loss(logits, labels, None, loss))
    return logits, gradient
