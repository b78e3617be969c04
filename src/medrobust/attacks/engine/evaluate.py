"""Run a suite on a model: who is fooled at which radius, image by image.

The whole suite is one job. Images stream through the attacks, the cheap ones first: who is naturally wrong never
enters, who is fooled leaves at once and another image takes the place. An image that is fooled at a radius counts
at every larger one, because the smaller ball lies inside the larger; an attack that failed at a radius is not
tried at smaller ones (see `course.py`). The answer is the per-image worst case over the suite. All that is random
about an image comes from its id and the seed, so that results do not depend on batch size, batch mates, the number
of processes or interruptions.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Norm, check_images, check_labels, check_logits, distance, frozen, margin
from medrobust.attacks.engine.attempts import RECORDS, table_of, worst_case
from medrobust.attacks.engine.resume import State
from medrobust.attacks.engine.schedule import Course
from medrobust.attacks.engine.streaming import Batch, Pool, Room
from medrobust.attacks.registry import load_attack
from medrobust.attacks.state import Stepwise
from medrobust.core.processes import gather, joined, share
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset

__all__ = ["RECORDS", "attack_suite", "build_attack", "evaluate_suite"]

#: Seconds between two reports of finished images.
FLUSH = 10.0


def build_attack(entry: dict[str, Any], eps: float, norm: Norm) -> Attack:
    """The attack of one entry of a resolved suite at a radius."""
    return load_attack(entry["name"], "suite")(eps=eps, norm=norm, **entry["hyperparameters"])


def evaluate_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, batch_size: int = 64,
    allow_weak: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """The per-image worst case of `attack_suite`: table of `attempts.RECORDS`, one row an image and radius."""
    attempts = attack_suite(model, subset, suite, seed=seed, batch_size=batch_size, allow_weak=allow_weak)
    return worst_case(attempts, suite["eps"])


def attack_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, batch_size: int = 64,
    bit_depth: int = 8, allow_weak: bool = False, state: State | None = None, train: Subset | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Attack every image of a subset with every attack of a resolved suite, at every radius that is in doubt.

    Args:
        model: images in [0, 1] to logits, on the device to use.
        subset: the images and their labels.
        suite: as `attacks.suite.resolve_suite` gives it.
        seed: each image's own seed derives from it and from the image's id.
        batch_size: images at once; results do not depend on it.
        bit_depth: of the files that attacked images would be stored in.
        allow_weak: attack a model that returns probabilities all the same.
        train: images of other patients, for attacks that are fitted (a universal perturbation).
        state: where finished images are kept, and read again after an interruption.

    Returns:
        Table of `attempts.ATTEMPTS` in the order of the subset's images, each image's attempts in their order.
        Under torchrun each process attacks its share of the images, and all return the whole table.

    Raises:
        UserError: labels that the model has no logit for; NaN, infinities or probabilities from it; a GPU
            whose memory does not hold a single image.
    """
    with joined(), frozen(model):
        known = state.read() if state else table_of([])
        mine = share(np.arange(len(subset)))
        known = known[known["id"].isin(subset.ids[mine])]
        todo = [row for row in mine if subset.ids[row] not in set(known["id"])]
        tables = [known]
        for table in _Job(model, subset, suite, seed, batch_size, bit_depth, allow_weak, train).run(todo):
            tables.append(table)
            if state:
                state.add(table)
        everything = pd.concat(gather(pd.concat(tables)))
    place = {name: number for number, name in enumerate(subset.ids)}
    return everything.sort_values("id", key=lambda ids: ids.map(place), kind="stable", ignore_index=True)


def named_attacks(suite: dict[str, Any]) -> list[tuple[str, Attack]]:
    """The attacks of a resolved suite and their names in records, in the order in which they run.

    The cheap run first; of two that cost the same, the one whose loss is the margin that decides success. An
    attack that stands in the suite twice is told apart by its hyper-parameters: `pgd(loss=margin)`.
    """
    names = [entry["name"] for entry in suite["attacks"]]
    found = []
    for entry in suite["attacks"]:
        settings = ",".join(f"{key}={value}" for key, value in entry["hyperparameters"].items())
        name = f"{entry['name']}({settings})" if names.count(entry["name"]) > 1 else entry["name"]
        found.append((name, build_attack(entry, suite["eps"][-1], suite["norm"])))
    return sorted(found, key=lambda pair: (pair[1].cost, getattr(pair[1], "loss", None) != "margin"))


class _Job:
    """One process's share of an evaluation."""

    def __init__(
        self, model: nn.Module, subset: Subset, suite: dict[str, Any], seed: int, batch_size: int, bit_depth: int,
        allow_weak: bool, train: Subset | None,
    ) -> None:  # fmt: skip
        self.model, self.subset, self.norm, self.radii = model, subset, suite["norm"], list(suite["eps"])
        self.levels, self.allow_weak = 2**bit_depth - 1, allow_weak
        self.device, self.room = next(model.parameters()).device, Room(batch_size)
        self.seeds = image_seeds(subset.ids, seed)
        self.give_up = bool(suite.get("give_up"))
        named = named_attacks(suite)
        self.names, self.attacks = [name for name, _ in named], [attack for _, attack in named]
        if train is not None:
            self.attacks = [attack.with_training(train) for attack in self.attacks]
        self.stages = [self._stage(attack) for attack in self.attacks]
        self.courses: dict[int, Course] = {}
        self.finished: list[Course] = []

    def _stage(self, attack: Attack) -> Pool | Batch:
        if isinstance(attack, Stepwise):
            return Pool(self.model, attack, self._fetch, self.room, give_up=self.give_up)
        return Batch(
            self.model, attack, self._fetch, self.room, lambda attack, rows: attack.for_images(self.subset, rows)
        )

    def run(self, rows: list[int]) -> Iterator[pd.DataFrame]:
        """Attack images; tables of those that are finished, every few seconds."""
        last = time.monotonic()
        for _ in progress(self._steps(rows), "attack", total=len(rows), unit="images"):
            if time.monotonic() - last >= FLUSH and self.finished:
                yield self._report()
                last = time.monotonic()
        yield self._report()

    def _steps(self, rows: list[int]) -> Iterator[None]:
        """Work until all images are done; one item for each that is.

        The deepest attack that has a full batch works first, so that images come to an end; else new images come
        in; at the end the attacks empty from the first to the last, so that those behind get full batches.
        """
        waiting, done = list(rows), 0
        while waiting or self.courses:
            full = [number for number, stage in enumerate(self.stages) if stage.load >= self.room.size]
            if full:
                self._work(full[-1])
            elif waiting:
                entering, waiting = waiting[: self.room.size], waiting[self.room.size :]
                self._enter(entering)
            else:
                self._work(next(number for number, stage in enumerate(self.stages) if stage.load))
            for _ in range(len(rows) - len(waiting) - len(self.courses) - done):
                yield
            done = len(rows) - len(waiting) - len(self.courses)

    def _fetch(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        images = self.subset.batch(rows).to(self.device)
        return images, self.subset.targets(rows).to(self.device), self.seeds[rows].to(self.device)

    def _judge(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(self.room.split(len(images), lambda rows: self.model(images[rows])))

    def _enter(self, rows: list[int]) -> None:
        """Ask the model about clean images; those that it knows set out."""
        images, labels, _ = self._fetch(rows)
        check_images(images)
        logits = self._judge(images)
        check_logits(logits, self.allow_weak)
        check_labels(labels, logits.shape[1])
        preds, gaps = logits.argmax(1).tolist(), margin(logits, labels).tolist()
        for row, label, pred, gap in zip(rows, labels.tolist(), preds, gaps, strict=True):
            wrong = pred != label
            course = Course(row, self.radii, self.attacks, 0 if wrong else len(self.radii))
            course.rows.append({
                "attack": "natural", "eps": 0.0, "fooled": wrong, "pred": pred, "margin": gap, "distance": 0.0,
                "saturation": 0.0, "displacement": 0.0, "steps": 0, "gradients": 0, "queries": 1,
            })  # fmt: skip
            self.courses[row] = course
            self._send(course)

    def _send(self, course: Course) -> None:
        """On to the next attempt, or among the finished."""
        task = course.next()
        if task is None:
            self.finished.append(self.courses.pop(course.row))
        else:
            self.stages[course.stage].queue.append(task)

    def _work(self, number: int) -> None:
        for outcome in self.stages[number].step():
            course = self.courses[outcome.task.row]
            course.take(self.names[number], outcome)
            self._send(course)

    def _report(self) -> pd.DataFrame:
        """The attempts of the finished images, which are forgotten."""
        done, self.finished = self.finished, []
        self._store(done)
        rows = []
        for course in done:
            row = course.row
            facts = {
                "id": self.subset.ids[row], "patient": self.subset.patients[row], "label": self.subset.labels[row],
                "clean_pred": course.rows[0]["pred"],
            }  # fmt: skip
            rows += [facts | attempt for attempt in course.rows]
        return table_of(rows)

    def _store(self, courses: list[Course]) -> None:
        """Round what fooled, scaled to each radius from there on, until the rounded image still fools."""
        left = [course for course in courses if course.found is not None]
        for number, eps in enumerate(self.radii):
            trying = [course for course in left if course.fooled <= number]
            if not trying:
                continue
            images, labels, _ = self._fetch([course.row for course in trying])
            found = torch.stack([course.found for course in trying if course.found is not None]).to(self.device)
            reach = distance(found, images, self.norm).clamp_min(1e-12).view(-1, 1, 1, 1)
            scaled = (images + (found - images) * (eps / reach)).clamp(0, 1)
            stored = (scaled * self.levels).round() / self.levels
            logits, away = self._judge(stored), distance(stored, images, self.norm)
            for course, pred, label, gap, far in zip(
                trying, logits.argmax(1).tolist(), labels.tolist(), margin(logits, labels).tolist(), away.tolist(),
                strict=True,
            ):  # fmt: skip
                course.rows.append({
                    "attack": "stored", "eps": eps, "fooled": pred != label, "pred": pred, "margin": gap,
                    "distance": far, "saturation": np.nan, "displacement": np.nan, "steps": 0, "gradients": 0,
                    "queries": 1,
                })  # fmt: skip
            left = [
                course for course in left if not course.rows[-1]["fooled"] or course.rows[-1]["attack"] != "stored"
            ]
