"""Continuous batching: finished images leave the batch, queued images take their slots, so that it stays full."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, QueryCounter, margin
from medrobust.attacks.projection import Norm, distance, per_image, project
from medrobust.attacks.state import AttackState, IterativeAttack
from medrobust.core.errors import UserError
from medrobust.core.runtime import say
from medrobust.data.store import Subset

T = TypeVar("T")
#: Steps over which `give_up` measures progress: a tenth of an attack's steps, but at least this many.
STRETCH = 3
#: An attempt is hopeless if this multiple of the last stretch's progress would not suffice in all remaining ones.
HOPE = 2.0
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


class BatchLimit:
    """Largest number of images per pass; halves with a message when the GPU is out of memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def split(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """Results of `work` on slices of `count` images that fit into memory; a UserError if no image fits."""
        results: list[T] = []
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                results.append(work(part))
            except torch.OutOfMemoryError:
                full = True
            else:
                start, full = part.stop, False
            if full:  # outside of the handler, whose traceback keeps the tensors alive
                self._halve(part.stop - part.start)
        return results

    def _halve(self, count: int) -> None:
        if count == 1:
            remedy = "Use a smaller model or image_size, or set MEDROBUST_DEVICE=cpu"
            raise UserError("GPU memory", "not even one image fits", remedy)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.size = count // 2
        say(f"out of GPU memory with {count} images per batch: continuing with {self.size}")


class StreamingBatch:
    """Runs the attempts of one iterative attack, whose own eps is not used, because each attempt has one.

    `give_up`: whether hopeless attempts end early (see `_hopeless`).
    """

    def __init__(
        self, model: nn.Module, attack: IterativeAttack, fetch: Fetch, limit: BatchLimit, *, give_up: bool = False
    ) -> None:
        self.model, self.attack, self.fetch, self.limit, self.give_up = model, attack, fetch, limit, give_up
        self.queue: deque[Attempt] = deque()
        self._attempts: list[Attempt] = []
        self._state: AttackState | None = None

    @property
    def pending(self) -> int:
        """Number of attempts that are queued or in the batch."""
        return len(self.queue) + len(self._attempts)

    def step(self) -> list[AttemptResult]:
        """Refill the batch, evaluate it and take one step; return the results of finished attempts."""
        state = self._refill()
        parts = self.limit.split(
            len(self._attempts), lambda rows: self.attack.evaluate(self.model, state.take(rows))
        )
        logits, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
        state.update_best(logits)
        leaving = state.score > 0
        if self.give_up:
            leaving |= self._hopeless(state)
        stay = ~leaving
        results, state = self._leave(state, leaving), state.take(stay)
        if self._attempts:
            state.current, state.steps = self.attack.step(state, gradient[stay]), state.steps + 1
            last = state.steps >= self.attack.num_steps
            if last.any():
                self._evaluate_last(state, last)
                results, state = results + self._leave(state, last, evaluated=True), state.take(~last)
        self._state = state if self._attempts else None
        return results

    def _refill(self) -> AttackState:
        free = self.limit.size - len(self._attempts)
        entering = [self.queue.popleft() for _ in range(min(len(self.queue), free))]
        if entering:
            images, labels, seeds = self.fetch([attempt.row for attempt in entering])
            eps = torch.tensor([attempt.eps for attempt in entering], dtype=images.dtype, device=images.device)
            starts = _starts(entering, images, self.attack.norm)
            new = AttackState.initial(images, labels, seeds, eps, 0, starts)
            new.restart += torch.tensor([attempt.restart for attempt in entering], device=images.device)
            warm = [attempt.from_clean or attempt.start is not None for attempt in entering]
            self.attack.begin(new, torch.tensor(warm, device=images.device))
            new.origin = new.current
            self._state = new if self._state is None else self._state.join(new)
            self._attempts = self._attempts + entering
        assert self._state is not None, "a step needs an attempt"
        return self._state

    def _hopeless(self, state: AttackState) -> Tensor:
        """Attempts, bool n, that would fail even if each remaining stretch gained twice as much as the last."""
        stretch = max(STRETCH, self.attack.num_steps // 10)
        due = state.steps % stretch == 0
        remaining = (self.attack.num_steps - state.steps) / stretch
        gain = state.score - state.earlier_score
        hopeless = due & (state.steps >= 2 * stretch) & (state.score + HOPE * remaining * gain < 0)
        state.earlier_score = torch.where(due, state.score, state.earlier_score)
        return hopeless

    def _evaluate_last(self, state: AttackState, last: Tensor) -> None:
        rows = state.take(last)
        with torch.no_grad():
            logits = self.limit.split(len(rows.images), lambda part: self.model(rows.current[part]))
        rows.update_best(torch.cat(logits))
        state.best[last], state.score[last], state.pred[last] = rows.best, rows.score, rows.pred

    def _leave(self, state: AttackState, leaving: Tensor, evaluated: bool = False) -> list[AttemptResult]:
        """Remove attempts and return their results; `evaluated` = after their last step, without a gradient."""
        flags = leaving.tolist()
        if not any(flags):
            return []
        gone = state.take(leaving)
        leavers = [attempt for attempt, flag in zip(self._attempts, flags, strict=True) if flag]
        costs = []
        for steps in gone.steps.tolist():
            # Before its last step, an image has one evaluation more than steps.
            evaluations, extra = (steps, 1) if evaluated else (steps + 1, 0)
            with_gradient = self.attack.uses_gradient
            costs.append((steps, evaluations, extra) if with_gradient else (steps, 0, evaluations + extra))
        self._attempts = [attempt for attempt, flag in zip(self._attempts, flags, strict=True) if not flag]
        return attempt_results(leavers, gone, self.attack.norm, costs)


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
        state = AttackState.initial(images, labels, seeds, eps, 0, images if start is None else start)
        with torch.no_grad():
            logits = self.model(result)
        state.best, state.score, state.pred = result, margin(logits, labels), logits.argmax(1)
        counts = zip(counter.gradients.tolist(), counter.queries.tolist(), strict=True)
        costs = [(gradients, gradients, queries + 1) for gradients, queries in counts]
        return attempt_results(attempts, state, self.attack.norm, costs)


def _starts(attempts: list[Attempt], images: Tensor, norm: Norm) -> Tensor:
    """First iterates, n×C×H×W: the clean images, or results of earlier attempts projected into the ball."""
    pairs = zip(attempts, images, strict=True)
    starts = [image if attempt.start is None else attempt.start for attempt, image in pairs]
    eps = torch.tensor([attempt.eps for attempt in attempts], dtype=images.dtype, device=images.device)
    return project(torch.stack([start.to(images.device) for start in starts]), images, per_image(eps), norm)


def attempt_results(
    attempts: list[Attempt], state: AttackState, norm: Norm, costs: list[tuple[int, int, int]]
) -> list[AttemptResult]:
    """Results of attempts whose best images are in `state`; `costs` has steps, gradients and queries of each."""
    moved = (state.best - state.images).abs()
    free = (state.best > 0) & (state.best < 1)
    full = (moved >= 0.99 * per_image(state.eps)) & free
    measured = zip(
        state.best.cpu().unbind(), state.pred.tolist(), state.score.tolist(),
        distance(state.best, state.images, norm).tolist(),
        (full.flatten(1).sum(1) / free.flatten(1).sum(1).clamp_min(1)).tolist(),
        distance(state.best, state.origin, norm).tolist(),
        strict=True,
    )  # fmt: skip
    return [
        AttemptResult(attempt, image, pred, gap, length, saturation, shift, *cost)
        for attempt, (image, pred, gap, length, saturation, shift), cost in zip(
            attempts, measured, costs, strict=True
        )
    ]
