"""Continuous batching: finished images leave the batch, queued images take their slots, so that it stays full."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, QueryCounter, margin
from medrobust.attacks.batch_limit import BatchLimit
from medrobust.attacks.problem import Problem
from medrobust.attacks.projection import Norm, distance, per_image, project
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.data.store import Subset

#: rows -> images n×C×H×W, labels and seeds, on the device of the model
Fetch = Callable[[list[int]], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Attempt:
    """One start of an attack on one image, which is in this `row` of the subset.

    `start`, C×H×W, is the result of an earlier attempt to start from; None = the clean image. `from_clean` starts
    at the clean image itself, even if the attack draws random starts.
    """

    row: int
    eps: float
    restart: int
    start: Tensor | None
    from_clean: bool = False


@dataclass(frozen=True)
class AttemptResult:
    """Result of an attempt.

    `image`, C×H×W on the CPU, fooled the model or has the largest margin; `pred` and `margin` belong to it.
    `distance` from the clean image and `displacement` from the start of the attempt are in the suite's norm.
    `saturation` is the share of the pixels strictly between 0 and 1 that moved by at least 99 % of eps.
    `gradients` and `queries` count evaluations with and without a gradient.
    """

    attempt: Attempt
    image: Tensor
    pred: int
    margin: float
    distance: float
    saturation: float
    displacement: float
    steps: int
    gradients: int
    queries: int


class StreamingBatch:
    """Runs the attempts of one iterative attack, whose own eps is not used, because each attempt has one.

    `subset` has the attacked images, for attacks that need more than their pixels. `give_up`: whether hopeless
    attempts end early.
    """

    def __init__(
        self, model: nn.Module, attack: IterativeAttack, fetch: Fetch, limit: BatchLimit, subset: Subset, *,
        give_up: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.attack, self.fetch, self.limit, self.subset = model, attack, fetch, limit, subset
        self.give_up = give_up
        self.queue: deque[Attempt] = deque()
        self._attempts: dict[int, Attempt] = {}  # by their number, `index` in the state
        self._entered = 0
        self._state: AttackState | None = None

    @property
    def pending(self) -> int:
        """Number of attempts that are queued or in the batch."""
        return len(self.queue) + len(self._attempts)

    def step(self) -> list[AttemptResult]:
        """Refill the batch, evaluate it and take one step; return the results of finished attempts."""
        state = self._refill()
        counter = state.model = QueryCounter(self.model, len(state.images))
        ended, state = self.attack.advance(state, give_up=self.give_up)
        for part in (ended, state):
            _add_costs(part, counter)
        self._state = state if len(state.images) else None
        return attempt_results([self._attempts.pop(number) for number in ended.index.tolist()], ended)

    def _refill(self) -> AttackState:
        free = self.limit.size - len(self._attempts)
        entering = [self.queue.popleft() for _ in range(min(len(self.queue), free))]
        if entering:
            rows = [attempt.row for attempt in entering]
            images, labels, seeds = self.fetch(rows)
            eps = torch.tensor([attempt.eps for attempt in entering], dtype=images.dtype, device=images.device)
            counter = QueryCounter(self.model, len(rows))
            problem = self.attack.for_images(self.subset, rows).problem(counter, images, labels, seeds, eps)
            problem.limit = self.limit
            restarts = torch.tensor([attempt.restart for attempt in entering], device=images.device)
            warm = [attempt.from_clean or attempt.start is not None for attempt in entering]
            starts = _starts(entering, images, self.attack.norm)
            new = self.attack.start(problem, restarts, starts, torch.tensor(warm, device=images.device))
            _add_costs(new, counter)
            new.index = new.index + self._entered
            self._attempts |= dict(enumerate(entering, self._entered))
            self._entered += len(entering)
            self._state = new if self._state is None else self._state.join(new)
        assert self._state is not None, "a step needs an attempt"
        return self._state


def _add_costs(state: AttackState, counter: QueryCounter) -> None:
    """Add what the counter has counted for the state, whose model (the counter or a view of it) is then plain."""
    assert isinstance(state.model, QueryCounter)
    state.costs = state.costs + counter.counts[state.model.rows].to(state.costs)
    state.model = counter.model


class FixedBatch:
    """Runs the attempts of an attack that cannot be stepped; each call attacks one batch at one radius.

    `subset` has the attacked images, for attacks that need more than their pixels.
    """

    def __init__(self, model: nn.Module, attack: Attack, fetch: Fetch, limit: BatchLimit, subset: Subset) -> None:
        self.model, self.attack, self.fetch, self.limit, self.subset = model, attack, fetch, limit, subset
        self.queue: deque[Attempt] = deque()

    @property
    def pending(self) -> int:
        return len(self.queue)

    def step(self) -> list[AttemptResult]:
        """Attack the queued images of the most frequent radius, as many as fit into a batch."""
        eps = Counter(attempt.eps for attempt in self.queue).most_common(1)[0][0]
        chosen: list[Attempt] = []
        others: deque[Attempt] = deque()
        for attempt in self.queue:
            (chosen if attempt.eps == eps and len(chosen) < self.limit.size else others).append(attempt)
        self.queue = others
        parts = self.limit.split(len(chosen), lambda rows: self._attack(chosen[rows], eps))
        return [result for part in parts for result in part]

    def _attack(self, attempts: list[Attempt], eps: float) -> list[AttemptResult]:
        rows = [attempt.row for attempt in attempts]
        images, labels, seeds = self.fetch(rows)
        attack = replace(self.attack, eps=eps).for_images(self.subset, rows)
        counter = QueryCounter(self.model, len(attempts))
        warm = any(attempt.start is not None for attempt in attempts)
        start = _starts(attempts, images, self.attack.norm) if warm else None
        result = attack(counter, images, labels, seeds=seeds, start=start)
        problem = Problem(counter, images, labels, seeds, eps, self.attack.norm)
        state = AttackState.initial(problem, 0, images if start is None else start)
        state.current = result
        logits = problem.logits(result)
        state.update_best(logits, margin(logits, labels))
        state.costs, state.steps = counter.counts, counter.counts[:, 0]
        return attempt_results(attempts, state)


def _starts(attempts: list[Attempt], images: Tensor, norm: Norm) -> Tensor:
    """First iterates, n×C×H×W: the clean images, or results of earlier attempts projected into the ball."""
    pairs = zip(attempts, images, strict=True)
    starts = [image if attempt.start is None else attempt.start for attempt, image in pairs]
    eps = torch.tensor([attempt.eps for attempt in attempts], dtype=images.dtype, device=images.device)
    return project(torch.stack([start.to(images.device) for start in starts]), images, per_image(eps), norm)


def attempt_results(attempts: list[Attempt], state: AttackState) -> list[AttemptResult]:
    """Results of attempts whose best images are in `state`."""
    moved = (state.best - state.images).abs()
    free = (state.best > 0) & (state.best < 1)
    full = (moved >= 0.99 * state.radius) & free
    measured = zip(
        attempts, state.best.cpu().unbind(), state.pred.tolist(), state.margin.tolist(),
        distance(state.best, state.images, state.norm).tolist(),
        (full.flatten(1).sum(1) / free.flatten(1).sum(1).clamp_min(1)).tolist(),
        distance(state.best, state.origin, state.norm).tolist(), state.steps.tolist(),
        state.costs[:, 0].tolist(), state.costs[:, 1].tolist(), strict=True,
    )  # fmt: skip
    return [AttemptResult(*each) for each in measured]
