"""Run a suite on a model: which image is fooled at which radius (docs/attacks.md, "The engine").

Random numbers come from an image's id and the seed. Batches, processes and interruptions do not change results.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, check_images, check_labels, check_logits, frozen, margin
from medrobust.attacks.batch_limit import BatchLimit
from medrobust.attacks.engine.attempts import table_of, worst_case
from medrobust.attacks.engine.resume import ResumeFolder
from medrobust.attacks.engine.schedule import ImageSchedule
from medrobust.attacks.engine.streaming import AttemptResult, FixedBatch, StreamingBatch
from medrobust.attacks.lookup import load_attack
from medrobust.attacks.projection import Norm, distance, per_image
from medrobust.attacks.state import IterativeAttack
from medrobust.core.params.hyperparameters import build
from medrobust.core.processes import gather, process_group, rows_of_rank
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset

#: Seconds between two tables of finished images.
FLUSH = 10.0
#: Called with the name of an attack and each of its results, which have the attacked image.
Watch = Callable[[str, AttemptResult], None]


def build_attack(entry: dict[str, Any], eps: float, norm: Norm) -> Attack:
    """The attack of one entry of a resolved suite at a radius.

    Raises:
        UserError: a suite that was written elsewhere has an attack or a hyper-parameter that does not exist, or a
            value that is not allowed.
    """
    name = str(entry["name"])
    return build(load_attack(name, "suite"), entry["hyperparameters"], f"suite: {name}", eps=eps, norm=norm)


def evaluate_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, batch_size: int = 64
) -> pd.DataFrame:
    """The per-image worst case of `attack_suite`: table of `attempts.RECORDS`, one row per image and radius."""
    return worst_case(attack_suite(model, subset, suite, seed=seed, batch_size=batch_size), suite["eps"])


def attack_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, batch_size: int = 64,
    bit_depth: int = 8, allow_weak: bool = False, resume: ResumeFolder | None = None, train: Subset | None = None,
    watch: Watch | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Attack every image of a subset with every attack of a resolved suite, at every undecided radius.

    Args:
        model: images in [0, 1] to logits, on the device to use.
        seed: each image's own seed derives from it and from the image's id.
        bit_depth: of the files in which attacked images would be stored.
        allow_weak: attack a model even if it returns probabilities.
        train: images of other patients, for attacks that are fitted (a universal perturbation).
        watch: called with each result; records hold no images.

    Returns:
        Table of `attempts.ATTEMPTS` in the order of the subset's images, with each image's attempts in their
        order. Under torchrun each process attacks its share of the images, and all return the whole table.

    Raises:
        UserError: the model has no logit for a label; it returns NaN, infinity or probabilities; or the memory of
            the GPU does not hold a single image.
    """
    with process_group(), frozen(model):
        known = resume.load() if resume else table_of([])
        mine = rows_of_rank(np.arange(len(subset)))
        known = known[known["id"].isin(subset.ids[mine])]
        todo = [row for row in mine if subset.ids[row] not in set(known["id"])]
        tables = [known]
        evaluation = _Evaluation(model, subset, suite, seed, batch_size, bit_depth, allow_weak, train, watch)
        for table in evaluation.run(todo):
            tables.append(table)
            if resume:
                resume.save(table)
        everything = pd.concat(gather(pd.concat(tables)))
    position = {name: number for number, name in enumerate(subset.ids)}
    return everything.sort_values("id", key=lambda ids: ids.map(position), kind="stable", ignore_index=True)


def named_attacks(suite: dict[str, Any]) -> list[tuple[str, Attack]]:
    """The attacks of a resolved suite with their names in records, in the order in which they run.

    Cheap attacks run first. Of two with the same cost, the one whose loss is the margin runs first, because the
    margin decides success. An attack that is listed twice is named with its hyper-parameters: `pgd(loss=margin)`.
    """
    names = [entry["name"] for entry in suite["attacks"]]
    named = []
    for entry in suite["attacks"]:
        settings = ",".join(f"{key}={value}" for key, value in entry["hyperparameters"].items())
        name = f"{entry['name']}({settings})" if names.count(entry["name"]) > 1 else entry["name"]
        named.append((name, build_attack(entry, suite["eps"][-1], suite["norm"])))
    return sorted(named, key=lambda pair: (pair[1].cost, getattr(pair[1], "loss", None) != "margin"))


class _Evaluation:
    """One process's share of an evaluation."""

    def __init__(
        self, model: nn.Module, subset: Subset, suite: dict[str, Any], seed: int, batch_size: int, bit_depth: int,
        allow_weak: bool, train: Subset | None, watch: Watch | None,
    ) -> None:  # fmt: skip
        self.watch = watch
        self.model, self.subset, self.norm, self.radii = model, subset, suite["norm"], list(suite["eps"])
        self.levels, self.allow_weak = 2**bit_depth - 1, allow_weak
        self.device, self.limit = next(model.parameters()).device, BatchLimit(batch_size)
        self.seeds = image_seeds(subset.ids, seed)
        self.give_up = bool(suite.get("give_up"))
        named = named_attacks(suite)
        self.names, self.attacks = [name for name, _ in named], [attack for _, attack in named]
        if train is not None:
            self.attacks = [attack.with_training(train) for attack in self.attacks]
        self.attacks = [attack.for_classes(len(subset.classes)) for attack in self.attacks]
        self.batches = [self._batch_of(attack) for attack in self.attacks]
        self.schedules: dict[int, ImageSchedule] = {}
        self.finished: list[ImageSchedule] = []

    def _batch_of(self, attack: Attack) -> StreamingBatch | FixedBatch:
        if isinstance(attack, IterativeAttack):
            return StreamingBatch(self.model, attack, self._fetch, self.limit, self.subset, give_up=self.give_up)
        return FixedBatch(self.model, attack, self._fetch, self.limit, self.subset)

    def run(self, rows: list[int]) -> Iterator[pd.DataFrame]:
        """Attack images; yield tables of the finished ones, every few seconds."""
        last = time.monotonic()
        for _ in progress(self._finish_images(rows), "attack", total=len(rows), unit="images"):
            if time.monotonic() - last >= FLUSH and self.finished:
                yield self._table_of_finished()
                last = time.monotonic()
        yield self._table_of_finished()

    def _finish_images(self, rows: list[int]) -> Iterator[None]:
        """Yield once per finished image. The last attack with a full batch works first, else new images enter."""
        waiting, done = list(rows), 0
        while waiting or self.schedules:
            full = [number for number, batch in enumerate(self.batches) if batch.pending >= self.limit.size]
            if full:
                self._work(full[-1])
            elif waiting:
                entering, waiting = waiting[: self.limit.size], waiting[self.limit.size :]
                self._enter(entering)
            else:
                # From the first attack to the last, so that later ones get full batches.
                self._work(next(number for number, batch in enumerate(self.batches) if batch.pending))
            for _ in range(len(rows) - len(waiting) - len(self.schedules) - done):
                yield
            done = len(rows) - len(waiting) - len(self.schedules)

    def _fetch(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        images = self.subset.batch(rows).to(self.device)
        return images, self.subset.targets(rows).to(self.device), self.seeds[rows].to(self.device)

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(self.limit.split(len(images), lambda rows: self.model(images[rows])))

    def _enter(self, rows: list[int]) -> None:
        images, labels, _ = self._fetch(rows)
        check_images(images)
        logits = self._logits(images)
        check_logits(logits, self.allow_weak)
        check_labels(labels, logits.shape[1])
        preds, gaps = logits.argmax(1).tolist(), margin(logits, labels).tolist()
        for row, label, pred, gap in zip(rows, labels.tolist(), preds, gaps, strict=True):
            wrong = pred != label
            schedule = ImageSchedule(row, self.radii, self.attacks, 0 if wrong else len(self.radii))
            schedule.records.append({
                "attack": "natural", "eps": 0.0, "fooled": wrong, "pred": pred, "margin": gap, "distance": 0.0,
                "saturation": 0.0, "displacement": 0.0, "steps": 0, "gradients": 0, "queries": 1,
            })  # fmt: skip
            self.schedules[row] = schedule
            self._send(schedule)

    def _send(self, schedule: ImageSchedule) -> None:
        attempt = schedule.next_attempt()
        if attempt is None:
            self.finished.append(self.schedules.pop(schedule.row))
        else:
            self.batches[schedule.attack_index].queue.append(attempt)

    def _work(self, number: int) -> None:
        for result in self.batches[number].step():
            schedule = self.schedules[result.attempt.row]
            if self.watch:
                self.watch(self.names[number], result)
            schedule.record_result(self.names[number], result)
            self._send(schedule)

    def _table_of_finished(self) -> pd.DataFrame:
        """The attempts on finished images, which are then forgotten."""
        done, self.finished = self.finished, []
        self._record_stored(done)
        rows = []
        for schedule in done:
            row = schedule.row
            facts = {
                "id": self.subset.ids[row], "patient": self.subset.patients[row], "label": self.subset.labels[row],
                "clean_pred": schedule.records[0]["pred"],
            }  # fmt: skip
            rows += [facts | record for record in schedule.records]
        return table_of(rows)

    def _record_stored(self, schedules: list[ImageSchedule]) -> None:
        """Record adversarial images as a file stores them, scaled to rising radii until the rounded one fools."""
        attacked = [schedule for schedule in schedules if schedule.adversarial is not None]
        done: set[int] = set()
        for number, eps in enumerate(self.radii):
            trying = [each for each in attacked if each.fooled <= number and each.row not in done]
            if not trying:
                continue
            images, labels, _ = self._fetch([schedule.row for schedule in trying])
            adversarial = [each.adversarial for each in trying if each.adversarial is not None]
            found = torch.stack(adversarial).to(self.device)
            length = per_image(distance(found, images, self.norm).clamp_min(1e-12))
            share = 1.0 if self.norm == "patch" else eps / length  # a patch already has all its values
            scaled = (images + (found - images) * share).clamp(0, 1)
            stored = (scaled * self.levels).round() / self.levels
            logits, lengths = self._logits(stored), distance(stored, images, self.norm)
            for schedule, pred, label, gap, far in zip(
                trying, logits.argmax(1).tolist(), labels.tolist(), margin(logits, labels).tolist(),
                lengths.tolist(), strict=True,
            ):  # fmt: skip
                schedule.records.append({
                    "attack": "stored", "eps": eps, "fooled": pred != label, "pred": pred, "margin": gap,
                    "distance": far, "saturation": np.nan, "displacement": np.nan, "steps": 0, "gradients": 0,
                    "queries": 1,
                })  # fmt: skip
                if pred != label:
                    done.add(schedule.row)
