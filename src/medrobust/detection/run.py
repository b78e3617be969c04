"""A detection cell: fit one model's detectors, test them against attackers who know them and who do not."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from medrobust.data.store import Subset
from medrobust.detection.aware import Aware, answers, least_suspicious, left_of, successful
from medrobust.detection.extract import SuiteAttack, changed_images
from medrobust.detection.features import DeepFeatures
from medrobust.detection.fitting import Splits, fit_guard, pick
from medrobust.detection.guard import Guard, save_guard
from medrobust.detection.measures import Answers, by_class, curve_points, summarise
from medrobust.detection.pricing import UNITS, Sides, priced, published
from medrobust.params.detection import DetectParams
from medrobust.params.report import ReportParams
from medrobust.records import atomic_dir, write_json, write_table

#: Thresholds of a drawn ROC or precision-recall curve.
CURVE_POINTS = 100


@dataclass(frozen=True)
class Outputs:
    """Where a cell writes: the fitted guard, per-image scores, metrics, and a folder of curves."""

    guard: Path
    scores: Path
    metrics: Path
    plots: Path


@dataclass
class Tables:
    """Rows that the cell's tables are written from."""

    curves: list[dict[str, Any]] = field(default_factory=list)
    risk: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    scores: list[pd.DataFrame] = field(default_factory=list)

    def note(self, subset: Subset, images: str, said: dict[str, Answers]) -> None:
        """Keep every detector's score of some images (`clean`, a suite, or a suite and an adaptive attack)."""
        first = next(iter(said.values()))
        table = pd.DataFrame({"id": subset.ids, "patient": subset.patients, "label": subset.labels})
        table = table.assign(images=images, pred=first.preds)
        self.scores.append(table.assign(**{f"score_{name}": part.scores for name, part in said.items()}))


@dataclass(frozen=True)
class Cell:
    """One guarded model and the images that it is tested on.

    Attributes:
        model: in eval mode.
        splits: train, val and test.
        guard: fitted.
        ordered: whether the classes are grades.
        params: block `detect`.
        report: resamples and confidence of intervals.
        clean: what is said of clean images, "val" and "test", by detector.
        chances: calibrated probabilities of the same, n×K.
        aware: attackers who know the guard.
        tables: rows collected on the way.
    """

    model: nn.Module
    splits: Splits
    guard: Guard
    ordered: bool
    params: DetectParams
    report: ReportParams
    clean: dict[str, dict[str, Answers]]
    chances: dict[str, np.ndarray]
    aware: Aware
    tables: Tables

    @property
    def intervals(self) -> dict[str, Any]:
        """How intervals are drawn."""
        return {"resamples": self.report.bootstrap, "confidence": self.report.confidence}

    def side(self, split: str, images: Tensor | Subset) -> tuple[dict[str, Answers], np.ndarray]:
        """Answers by detector and calibrated probabilities of images that stand for a split's."""
        return answers(self.model, self.guard, getattr(self.splits, split), images, self.splits.seed)


def run_detection(
    model: nn.Module, splits: Splits, plan: dict[str, Any], out: Outputs, *, ordered: bool,
    params: DetectParams, report: ReportParams, weights: str,
) -> None:  # fmt: skip
    """Fit, test and write one cell.

    Args:
        model: on its device, in eval mode.
        splits: the images.
        plan: the resolved suites and the detectors, as `plan.make_plan` gives it.
        out: where to write.
        ordered: whether the classes are grades (for the risk).
        params: block `detect`.
        report: resamples and confidence.
        weights: sha256 of the model's weights, kept in the guard.
    """
    begin = time.monotonic()
    few_val, few_test = (pick(part, params.test_images) for part in (splits.val, splits.test))
    splits = replace(splits, val=few_val, test=few_test)
    guard, learned = fit_guard(model, splits, plan, params, weights)
    few = pick(splits.test, params.adaptive.images)
    aware = Aware(model, few, guard, learned[DeepFeatures()], params.adaptive, splits.seed)
    cell = Cell(model, splits, guard, ordered, params, report, {}, {}, aware, Tables())
    for split in ("val", "test"):
        cell.clean[split], cell.chances[split] = cell.side(split, getattr(splits, split))
    cell.tables.note(splits.test, "clean", cell.clean["test"])
    test = splits.test
    record: dict[str, Any] = {
        "n": len(test),
        "patients": len(np.unique(test.patients)),
        "fpr": params.fpr,
        "temperature": guard.temperature,
        "suites": {
            name: _test_suite(cell, name, plan["suites"][name], eps) for name, eps in params.suites.items()
        },
    }
    if params.adaptive.images and "ood" in params.adaptive.attacks:
        record["ood"] = _test_off_anatomy(cell)
    record["seconds"] = round(time.monotonic() - begin, 1)
    save_guard(out.guard, guard)
    write_table(out.scores, pd.concat(cell.tables.scores, ignore_index=True))
    with atomic_dir(out.plots) as folder:
        for name in ("curves", "risk", "costs"):
            write_table(folder / f"{name}.csv", pd.DataFrame(getattr(cell.tables, name)))
    write_json(out.metrics, record, digits=4)


def _test_suite(cell: Cell, name: str, suite: dict[str, Any], eps: float) -> dict[str, Any]:
    """Every detector against one suite's attack, unaware and aware, and what that costs."""
    attack, images, sides = SuiteAttack(suite, eps, cell.splits.train), {}, {}
    for split in ("val", "test"):
        subset = getattr(cell.splits, split)
        images[split] = changed_images(cell.model, subset, attack, cell.splits.seed, f"{name} on {split}")
        sides[split] = cell.side(split, images[split])
    cell.tables.note(cell.splits.test, name, sides["test"][0])
    record: dict[str, Any] = {"eps": eps}
    for detector, fitted in cell.guard.detectors.items():
        clean, attacked = cell.clean["test"][detector], sides["test"][0][detector]
        row = _unaware(cell, clean, attacked, fitted.threshold)
        if fitted.detector.supervised:
            row["seen"] = name == cell.params.seen
        _draw(cell, name, detector, clean, attacked)
        paired = {
            split: Sides(cell.clean[split][detector], said[detector], cell.chances[split], chances)
            for split, (said, chances) in sides.items()
        }
        row["published_risk"] = published(paired["test"], fitted.threshold)
        sweep, curve = priced(paired["val"], paired["test"], cell.params.risk, ordered=cell.ordered)
        row["risk"] = _by_share(sweep)
        cell.tables.risk += [{"suite": name, "detector": detector, **line} for line in sweep]
        cell.tables.costs += [{"suite": name, "detector": detector, **line} for line in curve]
        if cell.params.adaptive.images:
            row["adaptive"] = _adaptive(cell, suite, detector, images["test"], eps)
        record[detector] = row
    return record


def _unaware(cell: Cell, clean: Answers, attacked: Answers, threshold: float) -> dict[str, Any]:
    """One detector against attackers who do not know it."""
    hit, classes = successful(clean, attacked), cell.splits.test.classes
    row = summarise(clean, attacked, **cell.intervals)
    row["successful"] = summarise(clean, attacked.where(hit), **cell.intervals)
    row["per_class"] = by_class(clean, attacked, classes, predicted=False)
    row["per_predicted"] = by_class(clean, attacked, classes, predicted=True)
    row["threshold"] = threshold
    row["test_fpr"] = float((clean.scores > threshold).mean())
    row["test_tpr"] = float((attacked.scores > threshold).mean())
    row["test_tpr_successful"] = float((attacked.scores[hit] > threshold).mean()) if hit.any() else None
    return row


def _by_share(sweep: list[dict[str, Any]]) -> dict[str, Any]:
    """Costs by unit and share, as the metrics file keeps them."""
    kept = ("cost_without", "cost_with", "clean_rejected")
    return {
        unit: {f"{line['share']:g}": {name: line[name] for name in kept} for line in sweep if line["unit"] == unit}
        for unit in UNITS
    }


def _adaptive(cell: Cell, suite: dict[str, Any], detector: str, images: Tensor, eps: float) -> dict[str, Any]:
    """The suite's attack and every adaptive one in its ball, on the same images, and the worst of all by image."""
    aware, everyone = cell.aware, cell.splits.test
    rows = np.searchsorted(everyone.rows, aware.subset.rows)
    clean = cell.clean["test"][detector].where(rows)
    unaware = aware.answers(images[rows])[detector]
    held_out = cell.clean["val"][detector].scores
    found = {"unaware": unaware, **aware.against(detector, eps, suite["norm"])}
    for attack, said in found.items():
        if attack != "unaware":
            cell.tables.note(aware.subset, f"{suite['name']}+{attack}", {detector: said})
    found["worst"] = least_suspicious(clean, list(found.values()))
    return {attack: left_of(clean, said, held_out, **cell.intervals) for attack, said in found.items()}


def _test_off_anatomy(cell: Cell) -> dict[str, Any]:
    """How many off-anatomy images reach a confident class, and how each detector ranks those."""
    images, confident = cell.aware.off_anatomy()
    said = cell.aware.answers(images)
    cell.tables.note(cell.aware.subset, "ood", said)
    record: dict[str, Any] = {"n": len(confident), "reached": float(confident.mean())}
    for detector, fitted in cell.guard.detectors.items():
        reached = said[detector].where(confident)
        row = summarise(cell.clean["test"][detector], reached, **cell.intervals)
        accepted = float((reached.scores <= fitted.threshold).mean()) if len(reached) else None
        record[detector] = {**row, "accepted": accepted}
    return record


def _draw(cell: Cell, suite: str, detector: str, clean: Answers, attacked: Answers) -> None:
    """Points of the ROC and precision-recall curves, of all attacked images and of the successful ones."""
    for which, some in (("all", attacked), ("successful", attacked.where(successful(clean, attacked)))):
        if len(some):
            points = curve_points(clean.scores, some.scores, CURVE_POINTS)
            cell.tables.curves += [{"suite": suite, "detector": detector, "images": which, **p} for p in points]
