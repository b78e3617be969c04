"""Attacks that go step by step: the author writes one move, and the engine decides whose move is worth its cost.

Every image of a batch has its own radius, its own count of moves and its own memory, so that a fooled image can
leave and another can take its place while the others walk on.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import Attack, focus, input_gradient, margin, per_image
from medrobust.core.params.hyperparameters import Count

Loss = Literal["ce", "margin"]


@dataclass
class Walk:
    """Where the images of a batch stand; row i of every tensor belongs to image i.

    Attributes:
        images: n×C×H×W in [0, 1], the clean images.
        labels: int64, n.
        seeds: int64, n.
        eps: n; each image's radius.
        restart: int64, n; which start of the image this is, from 0.
        step: int64, n; moves made.
        current: n×C×H×W; where the images stand.
        origin: n×C×H×W; where they started.
        best: n×C×H×W; the place with the largest margin that was looked at.
        score: n; its margin, -inf before the first look.
        mark: n; the score some moves ago (the engine's).
        pred: int64, n; its answer.
        memory: what the attack keeps for each image, n×...
    """

    images: Tensor
    labels: Tensor
    seeds: Tensor
    eps: Tensor
    restart: Tensor
    step: Tensor
    current: Tensor
    origin: Tensor
    best: Tensor
    score: Tensor
    mark: Tensor
    pred: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)

    def take(self, rows: Tensor | slice) -> "Walk":
        """Some images: positions, a mask or a slice."""
        own = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "memory"}
        return Walk(**own, memory={name: value[rows] for name, value in self.memory.items()})

    def join(self, other: "Walk") -> "Walk":
        """These images and then the others."""
        own = {
            f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)])
            for f in fields(self)
            if f.name != "memory"
        }
        memory = {name: torch.cat([value, other.memory[name]]) for name, value in self.memory.items()}
        return Walk(**own, memory=memory)

    def note(self, logits: Tensor) -> Tensor:
        """Keep the current places that have a larger margin than any before; the current margins, n.

        Args:
            logits: n×K, where the images stand.
        """
        margins = margin(logits, self.labels)
        better = margins > self.score
        self.best = torch.where(per_image(better), self.current, self.best)
        self.score = torch.where(better, margins, self.score)
        self.pred = torch.where(better, logits.argmax(1), self.pred)
        return margins


@dataclass(frozen=True, kw_only=True)
class Stepwise(Attack):
    """An attack that is a sequence of moves: look where the image stands, then go on.

    An image that is fooled keeps the first image that fooled it and leaves the computation; the others give back
    the place with the largest margin that they looked at. To add one: say `moves`, fill in `go`, and `begin` if it
    starts elsewhere or remembers anything.

    Attributes:
        restarts: starts, tried on the images that are not fooled yet.
        stop_when_fooled: whether fooled images leave (training wants the full attack and the last place: False).
        loss: whose gradient a look takes: cross-entropy, or the margin loss (the CW loss in the Linf ball).
    """

    nests: ClassVar[bool] = True
    restarts: Count = 1
    stop_when_fooled: bool = True
    loss: Loss = "ce"
    #: Whether a look takes the gradient, or the model's answer alone (a query).
    gradient: ClassVar[bool] = True

    @property
    @abstractmethod
    def moves(self) -> int:
        """Moves of one start; one look at the last place, without a gradient, follows them."""

    @property
    def drawn(self) -> bool:
        """Whether its starts are drawn at random where `begin` is not told otherwise."""
        return False

    @abstractmethod
    def go(self, walk: Walk, gradient: Tensor) -> Tensor:
        """Where each image goes next, n×C×H×W in its ball; `walk.memory` may change, all else is the caller's.

        Args:
            walk: after `step` moves; `best` and `score` hold what the last look found.
            gradient: of the loss where the images stand, n×C×H×W; empty for attacks that take none.
        """

    def begin(self, walk: Walk, warm: Tensor) -> None:
        """Set `walk.current` and `walk.memory` at the start.

        Args:
            walk: its `current` is where the caller would start.
            warm: bool, n; whether to begin right there, at an earlier attack's place or at the clean image;
                else the attack may draw a random start.
        """

    def look(self, model: nn.Module, walk: Walk) -> tuple[Tensor, Tensor]:
        """Logits n×K where the images stand, and the gradient that `go` wants."""
        if self.gradient:
            return loss_gradient(model, walk.current, walk.labels, self.loss)
        with torch.no_grad():
            return model(walk.current), torch.empty(len(walk.images), 0, device=walk.images.device)

    @property
    def cost(self) -> float:
        """Moves of all restarts; a move without a gradient counts a third."""
        return self.restarts * self.moves / (1 if self.gradient else 3)

    def to_the_end(self) -> "Stepwise":
        """The attack with all its moves on every image, fooled or not."""
        return replace(self, stop_when_fooled=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor, start: Tensor) -> Tensor:
        result = start.clone()
        left = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            place = start if restart == 0 else images
            walk = self.enter(images[left], labels[left], seeds[left], self.eps, restart, place[left])
            self.begin(walk, torch.full_like(left, place is not images, dtype=torch.bool))
            found, fooled = self._walk(focus(model, left), walk)
            result[left] = found
            left = left[~fooled]
            if not len(left):
                break
        return result

    @staticmethod
    def enter(
        images: Tensor, labels: Tensor, seeds: Tensor, eps: float | Tensor, restart: int, place: Tensor
    ) -> Walk:
        """Images that stand at `place` and have not moved."""
        radii = torch.as_tensor(eps, dtype=images.dtype, device=images.device).expand(len(images))
        none = torch.zeros_like(labels)
        score = torch.full_like(radii, -torch.inf)
        return Walk(images, labels, seeds, radii, none + restart, none, place, place, place, score, score, labels)

    def _walk(self, model: nn.Module, walk: Walk) -> tuple[Tensor, Tensor]:
        """One start to its end; the images, and which of them fool the model."""
        result = walk.current.clone()
        fooled = torch.zeros(len(result), dtype=torch.bool, device=result.device)
        active = torch.arange(len(result), device=result.device)
        for _ in range(self.moves):
            logits, gradient = self.look(model, walk)
            walk.note(logits)
            if self.stop_when_fooled and bool((wrong := walk.score > 0).any()):
                result[active[wrong]], fooled[active[wrong]] = walk.current[wrong], True
                model, walk, active, gradient = (
                    focus(model, ~wrong),
                    walk.take(~wrong),
                    active[~wrong],
                    gradient[~wrong],
                )
                if not len(active):
                    return result, fooled
            walk.current, walk.step = self.go(walk, gradient), walk.step + 1
        if self.stop_when_fooled:
            with torch.no_grad():
                walk.note(model(walk.current))
            fooled[active] = walk.score > 0
        result[active] = walk.best if self.stop_when_fooled else walk.current
        return result, fooled


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logits n×K, and the gradient of each image's loss by its pixels, n×C×H×W, in float32."""

    def losses(logits: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none") if loss == "ce" else margin(logits, labels)

    logits, _, gradient = input_gradient(model, images, losses)
    return logits, gradient
