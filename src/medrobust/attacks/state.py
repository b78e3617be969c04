"""Iterative attacks: a method implements one step, and the engine decides which images take it."""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, QueryCounter, input_gradient, margin
from medrobust.attacks.problem import STREAMS, BestImages, Problem, TargetableAttack, improves
from medrobust.attacks.projection import per_image
from medrobust.attacks.targets import Loss, attack_loss
from medrobust.core.params.base import Count

#: Steps over which `give_up` measures progress: a tenth of an attack's steps, but at least this many.
STRETCH = 3
#: An attempt is hopeless if this multiple of the last stretch's progress would not suffice in all remaining ones.
HOPE = 2.0


@dataclass(kw_only=True)
class AttackState(Problem):
    """State of a batch under an iterative attack; row i of every tensor belongs to image i.

    The iterates `current`, `origin` (the first) and `best` (the evaluated one with the highest score) are n×C×H×W
    in [0, 1]. `score`, n, is that of `best` (see `IterativeAttack.scores`), and -inf before the first evaluation.
    `pred` is the predicted class of `best`, and `margin` its margin without a target. `earlier_score` is the score
    some steps ago (used by `give_up`). `index` is the number of each image in the caller's batch, `restart` the
    number of its start, from 0, and `steps` the steps taken. `costs`, n×2, are evaluations with and without a
    gradient. `memory` has what a method keeps from step to step.
    """

    index: Tensor
    restart: Tensor
    steps: Tensor
    current: Tensor
    origin: Tensor
    best: Tensor
    score: Tensor
    earlier_score: Tensor
    margin: Tensor
    pred: Tensor
    costs: Tensor
    memory: dict[str, Tensor]

    @classmethod
    def initial(cls, problem: Problem, restart: int | Tensor, first: Tensor) -> "AttackState":
        """State of a problem whose first iterates are `first`, n×C×H×W, before any evaluation."""
        zeros, index = torch.zeros_like(problem.labels), torch.arange(len(first), device=first.device)
        score = first.new_full((len(first),), -torch.inf)
        return cls(
            **vars(problem), index=index, restart=zeros + restart, steps=zeros, current=first, origin=first,
            best=first, score=score, earlier_score=score, margin=score, pred=problem.labels,
            costs=zeros[:, None].expand(-1, 2), memory={},
        )  # fmt: skip

    def join(self, other: "AttackState") -> "AttackState":
        """The state of these images followed by those of `other`, a problem of the same attack."""

        def both(one: Any, two: Any) -> Any:
            if isinstance(one, dict):
                return {name: both(value, two[name]) for name, value in one.items()}
            if isinstance(one, QueryCounter):
                return one.with_rows(torch.cat([one.rows, two.rows]))
            return torch.cat([one, two]) if isinstance(one, Tensor) else one

        return AttackState(**{f.name: both(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    @property
    def idle(self) -> Tensor:
        """Images that cannot be attacked, because the class to lead to is their own label; bool n."""
        if self.loss_targets is None:
            return torch.zeros_like(self.labels, dtype=torch.bool)
        return self.loss_targets == self.labels

    @property
    def stream(self) -> Tensor:
        """For each image, the number of a random stream that only this step uses; int64 n."""
        return self.restart * STREAMS + self.steps

    def update_best(self, logits: Tensor, scores: Tensor, *, always: bool = False) -> None:
        """Store the current iterates (with these logits, n×K) with higher scores; `always` = with any score."""
        better = improves(scores, self.score) | always
        self.best = torch.where(per_image(better), self.current, self.best)
        self.score = torch.where(better, scores, self.score)
        self.margin = torch.where(better, margin(logits, self.labels), self.margin)
        self.pred = torch.where(better, logits.argmax(1), self.pred)


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(TargetableAttack):
    """An attack that repeats two operations: evaluate the current iterate, then take a step.

    The result of a fooled image is the first iterate that fools the model; the image is then not evaluated again.
    The result of any other image is the evaluated iterate with the largest margin. A new attack defines
    `num_steps` and `step`, and overrides `begin` if it does not start at the given image.

    Attributes:
        restarts: number of starts; later ones are tried on images that are not fooled yet.
        stop_when_fooled: whether fooled images stop. If not, every start takes all its steps.
        keep: the result is the iterate with the largest margin (`best`), or the `last` one.
    """

    failure_covers_smaller_eps: ClassVar[bool] = True
    restarts: Count = 1
    stop_when_fooled: bool = True
    keep: Literal["best", "last"] = "best"
    #: Whether an evaluation computes the gradient. If not, it is a query.
    uses_gradient: ClassVar[bool] = False

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps of one start. The last iterate is evaluated as well, without a gradient."""

    @property
    def starts(self) -> int:
        """Starts per image."""
        return self.restarts

    @property
    def has_random_start(self) -> bool:
        return False

    @abstractmethod
    def step(self, state: AttackState, found: tuple[Tensor, ...]) -> Tensor:
        """The next iterate of each image, n×C×H×W inside its ball. Of the state, only `memory` may be changed.

        Args:
            state: after `state.steps` steps; `best` and `score` include the current iterates.
            found: what `evaluate` returned besides the logits.
        """

    def begin(self, state: AttackState, warm: Tensor) -> None:
        """Replace `state.current`, the images from which the caller wants to start, by the first iterates.

        Where `warm` (bool, n), an attack with random starts begins exactly there; elsewhere it may draw one.
        """

    def evaluate(self, state: AttackState, *, last: bool = False) -> tuple[Tensor, ...]:
        """Logits n×K of the current iterates, and what `step` needs; after the `last` step, the logits suffice."""
        return (state.logits(state.current),)

    def scores(self, state: AttackState, logits: Tensor, found: tuple[Tensor, ...]) -> Tensor:
        """The number, n, by which the best iterate of each image is chosen; a positive one is a success."""
        return state.margins(logits)

    @property
    def cost(self) -> float:
        return self.starts * self.num_steps / (1 if self.uses_gradient else 3)

    def gradient_attacks(self) -> list[Attack]:
        return [self] if self.uses_gradient else []

    def to_the_end(self) -> "IterativeAttack":
        return replace(self, stop_when_fooled=False)

    def start(self, problem: Problem, number: int | Tensor, first: Tensor, warm: Tensor) -> AttackState:
        """State before a start (its number, from 0, or one per image); `first` and `warm` are as in `begin`."""
        state = AttackState.initial(problem, number, problem.project(first))
        self.begin(state, warm)
        state.current = torch.where(per_image(state.idle), state.images, state.current)
        state.origin = state.current
        return state

    def advance(self, state: AttackState, *, give_up: bool = False) -> tuple[AttackState, AttackState]:
        """Evaluate the iterates and take one step; return the images that have finished, and the others.

        `give_up`: whether hopeless attempts end early (see `_hopeless`).
        """
        logits, *rest = self.evaluate(state)
        found, always = tuple(rest), self.keep == "last"
        state.update_best(logits, self.scores(state, logits, found), always=always)
        done = state.idle
        if self.stop_when_fooled:
            done = done | (state.score > 0)
        if give_up:
            done = done | self._hopeless(state)
        some = bool(done.any())
        ended = state.take(done if some else slice(0))
        if some:
            state, found = state.take(~done), tuple(part[~done] for part in found)
        if len(state.images):
            state.current, state.steps = self.step(state, found), state.steps + 1
            last = state.steps >= self.num_steps
            if last.any():
                final, state = state.take(last), state.take(~last)
                if always and not self.stop_when_fooled:  # as in training: the last iterate is the result anyway
                    final.best = final.current
                else:
                    logits, *rest = self.evaluate(final, last=True)
                    final.update_best(logits, self.scores(final, logits, tuple(rest)), always=always)
                ended = ended.join(final)
        return ended, state

    def search(self, problem: Problem, start: Tensor) -> Tensor:
        best = BestImages(start)
        for number, rows, part in best.rounds(problem, range(self.starts), every=not self.stop_when_fooled):
            first = part.images if number else start[rows]
            moved = (first != part.images).flatten(1).any(1)
            state = self.start(part, number, first, moved)
            if number and state.idle.all():  # no wrong class is left
                break
            while len(state.images):
                ended, state = self.advance(state)
                best.update(ended.best, ended.score, rows[ended.index])
        return best.images

    def _hopeless(self, state: AttackState) -> Tensor:
        """Attempts, bool n, that would fail even if each remaining stretch gained twice as much as the last."""
        stretch = max(STRETCH, self.num_steps // 10)
        due = state.steps % stretch == 0
        remaining = (self.num_steps - state.steps) / stretch
        gain = state.score - state.earlier_score
        hopeless = due & (state.steps >= 2 * stretch) & (state.score + HOPE * remaining * gain < 0)
        state.earlier_score = torch.where(due, state.score, state.earlier_score)
        return hopeless


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Logits n×K, and the gradient of each image's loss with respect to its pixels, n×C×H×W, in float32."""
    logits, _, gradient = input_gradient(model, images, lambda logits, _: attack_loss(logits, labels, None, loss))
    return logits, gradient
