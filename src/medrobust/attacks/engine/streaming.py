"""Batches whose places are refilled: who is fooled, or has made all moves, leaves, and the next image enters.

A batch of fixed images runs emptier with every image that is fooled; this one stays full until nobody waits, so
that the hardware works at its best batch size to the end.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Meter, Norm, distance, margin, per_image, project
from medrobust.attacks.state import Stepwise, Walk
from medrobust.core.errors import UserError
from medrobust.core.runtime import say

T = TypeVar("T")
#: A stretch of moves over which progress is measured: a tenth of an attack's moves, but at least so many.
STRETCH = 3
#: An attempt is hopeless if so many times the last stretch's progress, made in all that are left, would not do.
HOPE = 2.0
#: Images n×C×H×W, labels and seeds of rows, on the device to use.
Fetch = Callable[[list[int]], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """One start of an attack on one image.

    Attributes:
        row: which image.
        eps: radius.
        restart: which start.
        moves: how many it may make (stepwise attacks).
        place: C×H×W where an earlier attempt stood; None: the clean image.
        plain: begin at the clean image itself, where the attack would draw a random start.
    """

    row: int
    eps: float
    restart: int
    moves: int
    place: Tensor | None
    plain: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: that was done.
        found: C×H×W on the CPU; the image that fooled the model, or the one with the largest margin.
        pred: the answer that the model gives it.
        margin: its largest other logit less the true one; positive where it is wrong.
        distance: from the clean image in the suite's norm.
        saturation: share of the pixels not at 0 or 1 that moved by at least 99 % of eps.
        displacement: from the place where the attempt started, in the suite's norm.
        steps, gradients, queries: moves made, gradient evaluations, evaluations without a gradient.
    """

    task: Task
    found: Tensor
    pred: int
    margin: float
    distance: float
    saturation: float
    displacement: float
    steps: int
    gradients: int
    queries: int


class Room:
    """How many images the device takes at once; halves, and says so, when its memory is out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def split(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """Do work on all of `count` images, as many at once as fit.

        Raises:
            UserError: not even one image fits.
        """
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
            raise UserError(
                "GPU memory", "not even one image fits", "Take a smaller model or image_size, or a CPU"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.size = count // 2
        say(f"out of GPU memory with {count} images at once: going on with {self.size}")


class Pool:
    """The tasks of one stepwise attack.

    Args:
        model: the attacked model.
        attack: its own eps is not used, each task has one.
        fetch: how to get at images.
        room: images at once.
        give_up: whether hopeless attempts end early (see `_hopeless`).
    """

    def __init__(
        self, model: nn.Module, attack: Stepwise, fetch: Fetch, room: Room, *, give_up: bool = False
    ) -> None:
        self.model, self.attack, self.fetch, self.room, self.give_up = model, attack, fetch, room, give_up
        self.queue: deque[Task] = deque()
        self._tasks: list[Task] = []
        self._walk: Walk | None = None

    @property
    def load(self) -> int:
        """Tasks that wait or are under way."""
        return len(self.queue) + len(self._tasks)

    def step(self) -> list[Outcome]:
        """Refill, look once and move once; what came of those who left."""
        walk = self._refill()
        looks = self.room.split(len(self._tasks), lambda rows: self.attack.look(self.model, walk.take(rows)))
        logits, gradient = (torch.cat(part) for part in zip(*looks, strict=True))
        walk.note(logits)
        leaving = walk.score > 0
        if self.give_up:
            leaving |= self._hopeless(walk)
        stay = ~leaving
        outcomes, walk = self._leave(walk, leaving), walk.take(stay)
        if self._tasks:
            walk.current, walk.step = self.attack.go(walk, gradient[stay]), walk.step + 1
            limit = torch.tensor([task.moves for task in self._tasks], device=walk.step.device)
            last = walk.step >= limit
            if last.any():
                self._last_look(walk, last)
                outcomes, walk = outcomes + self._leave(walk, last, looked=True), walk.take(~last)
        self._walk = walk if self._tasks else None
        return outcomes

    def _refill(self) -> Walk:
        entering = [self.queue.popleft() for _ in range(min(len(self.queue), self.room.size - len(self._tasks)))]
        if entering:
            images, labels, seeds = self.fetch([task.row for task in entering])
            eps = torch.tensor([task.eps for task in entering], dtype=images.dtype, device=images.device)
            new = Stepwise.enter(images, labels, seeds, eps, 0, _places(entering, images, self.attack.norm))
            new.restart += torch.tensor([task.restart for task in entering], device=images.device)
            warm = [task.plain or task.place is not None for task in entering]
            self.attack.begin(new, torch.tensor(warm, device=images.device))
            new.origin = new.current
            self._walk = new if self._walk is None else self._walk.join(new)
            self._tasks = self._tasks + entering
        assert self._walk is not None, "a step needs a task"
        return self._walk

    def _hopeless(self, walk: Walk) -> Tensor:
        """Which attempts to end early, bool n: where even twice the progress of the last stretch would not do.

        The margin of an iterative attack rises ever more slowly. After each stretch (from the second on) what was
        gained in it is projected on those that are left, twice over; who would still not be fooled leaves.
        """
        stretch = max(STRETCH, self.attack.moves // 10)
        due = walk.step % stretch == 0
        left = (self.attack.moves - walk.step) / stretch
        hopeless = due & (walk.step >= 2 * stretch) & (walk.score + HOPE * left * (walk.score - walk.mark) < 0)
        walk.mark = torch.where(due, walk.score, walk.mark)
        return hopeless

    def _last_look(self, walk: Walk, last: Tensor) -> None:
        """Judge the last places, without a gradient."""
        rows = walk.take(last)
        with torch.no_grad():
            logits = self.room.split(len(rows.images), lambda part: self.model(rows.current[part]))
        rows.note(torch.cat(logits))
        walk.best[last], walk.score[last], walk.pred[last] = rows.best, rows.score, rows.pred

    def _leave(self, walk: Walk, leaving: Tensor, looked: bool = False) -> list[Outcome]:
        """What came of those who leave, after a last look without a gradient where they `looked`."""
        flags = leaving.tolist()
        if not any(flags):
            return []
        gone = walk.take(leaving)
        leavers = [task for task, flag in zip(self._tasks, flags, strict=True) if flag]
        costs = []
        for steps in gone.step.tolist():
            # Who leaves before the last look has looked once more than it has moved.
            looks, last = (steps, 1) if looked else (steps + 1, 0)
            costs.append((steps, looks, last) if self.attack.gradient else (steps, 0, looks + last))
        self._tasks = [task for task, flag in zip(self._tasks, flags, strict=True) if not flag]
        return outcomes(leavers, gone, self.attack.norm, costs)


class Batch:
    """The tasks of an attack that runs to its end by itself; a step is one batch of one radius.

    Args:
        model, attack, fetch, room: as of a `Pool`.
        fit: gives the attack as it meets the images of some rows; None: the same for all.
    """

    def __init__(
        self, model: nn.Module, attack: Attack, fetch: Fetch, room: Room,
        fit: Callable[[Attack, list[int]], Attack] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.attack, self.fetch, self.room, self.fit = model, attack, fetch, room, fit
        self.queue: deque[Task] = deque()

    @property
    def load(self) -> int:
        """Tasks that wait."""
        return len(self.queue)

    def step(self) -> list[Outcome]:
        """Attack those who wait at the commonest radius, as many as have room."""
        eps = Counter(task.eps for task in self.queue).most_common(1)[0][0]
        chosen: list[Task] = []
        others: deque[Task] = deque()
        for task in self.queue:
            (chosen if task.eps == eps and len(chosen) < self.room.size else others).append(task)
        self.queue = others
        parts = self.room.split(len(chosen), lambda rows: self._attack(chosen[rows], eps))
        return [outcome for part in parts for outcome in part]

    def _attack(self, tasks: list[Task], eps: float) -> list[Outcome]:
        rows = [task.row for task in tasks]
        images, labels, seeds = self.fetch(rows)
        attack = replace(self.attack, eps=eps)
        attack = attack if self.fit is None else self.fit(attack, rows)
        meter = Meter(self.model, len(tasks))
        place = _places(tasks, images, self.attack.norm) if any(task.place is not None for task in tasks) else None
        found = attack(meter, images, labels, seeds=seeds, start=place)
        walk = Stepwise.enter(images, labels, seeds, eps, 0, images if place is None else place)
        with torch.no_grad():
            logits = self.model(found)
        walk.best, walk.score, walk.pred = found, margin(logits, labels), logits.argmax(1)
        counts = zip(meter.gradients.tolist(), meter.queries.tolist(), strict=True)
        return outcomes(tasks, walk, self.attack.norm, [(gradients, gradients, n + 1) for gradients, n in counts])


def _places(tasks: list[Task], images: Tensor, norm: Norm) -> Tensor:
    """Where the tasks start, n×C×H×W: the clean images, or earlier places brought into the ball."""
    places = [image if task.place is None else task.place for task, image in zip(tasks, images, strict=True)]
    eps = torch.tensor([task.eps for task in tasks], dtype=images.dtype, device=images.device)
    return project(torch.stack([place.to(images.device) for place in places]), images, per_image(eps), norm)


def outcomes(tasks: list[Task], walk: Walk, norm: Norm, costs: list[tuple[int, int, int]]) -> list[Outcome]:
    """The outcomes of tasks whose best places `walk` holds; `costs` are steps, gradients and queries of each."""
    moved = (walk.best - walk.images).abs()
    free = (walk.best > 0) & (walk.best < 1)
    full = (moved >= 0.99 * per_image(walk.eps)) & free
    measured = zip(
        walk.best.cpu().unbind(), walk.pred.tolist(), walk.score.tolist(),
        distance(walk.best, walk.images, norm).tolist(),
        (full.flatten(1).sum(1) / free.flatten(1).sum(1).clamp_min(1)).tolist(),
        distance(walk.best, walk.origin, norm).tolist(),
        strict=True,
    )  # fmt: skip
    found: list[Outcome] = []
    for task, (image, pred, gap, away, saturation, shift), cost in zip(tasks, measured, costs, strict=True):
        found.append(Outcome(task, image, pred, gap, away, saturation, shift, *cost))
    return found
