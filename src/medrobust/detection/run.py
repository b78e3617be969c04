"""A detection cell: fit one model's detectors, test them against attackers who know them and who do not."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from medrobust.core.intervals import round_to_interval
from medrobust.core.params.detection import DetectParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import write_metrics
from medrobust.data.store import Subset
from medrobust.detection.adaptive.runs import Aware, answers, least_suspicious, left_of, successful
from medrobust.detection.extract import SuiteAttack, changed_images
from medrobust.detection.features import DeepFeatures
from medrobust.detection.fitting import Splits, fit_guard, pick
from medrobust.detection.guard import Guard, save_guard
from medrobust.detection.measures import Answers, by_class, summarise
from medrobust.detection.pricing import (
    UNITS,
    Choice,
    Row,
    Sides,
    by_threshold,
    candidates,
    cheapest,
    paid,
    prices_of,
    published,
)
from medrobust.detection.risk import Prices
from medrobust.detection.tables import Place, Tables


@dataclass(frozen=True)
class Outputs:
    """Where a cell writes: the fitted guard, per-image scores, metrics, and a folder of curves."""

    guard: Path
    scores: Path
    metrics: Path
    plots: Path


@dataclass(frozen=True)
class Cell:
    """One guarded model and the images that it is tested on.

    Attributes:
        model: in eval mode.
        splits: train, val and test.
        guard: fitted.
        prices: of errors and rejections.
        params: block `detect`.
        report: resamples and confidence of intervals.
        clean: what is said of clean images, "val" and "test", by detector.
        aware: attackers who know the guard.
        tables: rows collected on the way.
    """

    model: nn.Module
    splits: Splits
    guard: Guard
    prices: Prices
    params: DetectParams
    report: ReportParams
    clean: dict[str, dict[str, Answers]]
    aware: Aware
    tables: Tables

    @property
    def intervals(self) -> dict[str, Any]:
        """How intervals are drawn."""
        return {"resamples": self.report.bootstrap, "confidence": self.report.confidence}

    def answers(self, split: str, images: Tensor | Subset) -> dict[str, Answers]:
        """Answers by detector on images that stand for a split's."""
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
    prices = prices_of(params.risk, len(splits.test.classes), ordered=ordered)
    cell = Cell(model, splits, guard, prices, params, report, {}, aware, Tables())
    for split in ("val", "test"):
        cell.clean[split] = cell.answers(split, getattr(splits, split))
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
    cell.tables.write(out.scores, out.plots)
    write_metrics(out.metrics, record, dvc_metrics(record, next(iter(guard.detectors))))


def dvc_metrics(record: dict[str, Any], detector: str) -> dict[str, float]:
    """What DVC shows of the detector that rejects: its worst AUROC over suites, of unaware and aware attackers.

    Both of successful attacks, as the report has them: to see an attack that fails is worth nothing.
    """
    rows = [suite[detector] for suite in record["suites"].values()]
    unaware = [(row["successful"].get("auroc"), row["successful"].get("auroc_ci")) for row in rows]
    worst = [row["adaptive"]["worst"] for row in rows if "adaptive" in row]
    aware = [(row["successful_auroc"], row["successful_auroc_ci"]) for row in worst]
    shown = {}
    for name, found in (("auroc", unaware), ("auroc_aware", aware)):
        if known := [pair for pair in found if pair[0] is not None]:
            shown[name] = round_to_interval(*min(known))
    return shown


def _test_suite(cell: Cell, name: str, suite: dict[str, Any], eps: float) -> dict[str, Any]:
    """Every detector against one suite's attack, unaware and aware, and what that costs."""
    attack, images, said = SuiteAttack(suite, eps, cell.splits.train), {}, {}
    for split in ("val", "test"):
        subset = getattr(cell.splits, split)
        images[split] = changed_images(cell.model, subset, attack, cell.splits.seed, f"{name} on {split}")
        said[split] = cell.answers(split, images[split])
    cell.tables.note(cell.splits.test, name, said["test"])
    record: dict[str, Any] = {"eps": eps}
    for detector, fitted in cell.guard.detectors.items():
        val, test = (Sides(cell.clean[split][detector], said[split][detector]) for split in ("val", "test"))
        rejection = Rejection(
            fitted.threshold, cheapest(val, cell.prices, cell.params.risk.shares), candidates(val)
        )
        row = _unaware(cell, test, fitted.threshold)
        if fitted.detector.supervised:
            row["seen"] = name == cell.params.seen
        row |= _priced(cell, rejection, Place(name, detector, "unaware", "all"), test)
        if cell.params.adaptive.images:
            row["adaptive"] = _adaptive(cell, suite, detector, images["test"], eps, rejection)
        record[detector] = row
    return record


def _unaware(cell: Cell, sides: Sides, threshold: float) -> dict[str, Any]:
    """One detector against attackers who do not know it."""
    clean, attacked, classes = sides.clean, sides.attacked, cell.splits.test.classes
    hit = successful(clean, attacked)
    row = summarise(clean, attacked, **cell.intervals)
    row["successful"] = summarise(clean, attacked.where(hit), **cell.intervals)
    row["per_class"] = by_class(clean, attacked, classes, predicted=False)
    row["per_predicted"] = by_class(clean, attacked, classes, predicted=True)
    row["threshold"] = threshold
    row["test_fpr"] = float((clean.scores > threshold).mean())
    row["test_tpr"] = float((attacked.scores > threshold).mean())
    row["test_tpr_successful"] = float((attacked.scores[hit] > threshold).mean()) if hit.any() else None
    return row


@dataclass(frozen=True)
class Rejection:
    """Thresholds of a detector, all of them chosen on validation images.

    Attributes:
        usual: the one that the guard rejects at.
        choices: the cheapest for each unit and share of attacked images.
        sweep: those among which the cheapest was sought.
    """

    usual: float
    choices: list[Choice]
    sweep: np.ndarray


def _priced(cell: Cell, rejection: Rejection, place: Place, sides: Sides) -> dict[str, Any]:
    """The published risk and the cost by unit and share of attacked images; what is drawn goes to the tables."""
    sweep = paid(sides, rejection.choices, cell.prices)
    cell.tables.draw(place, sides)
    cell.tables.price(place, sweep, by_threshold(sides, rejection.sweep, cell.prices))
    return {"published_risk": published(sides, rejection.usual), "risk": _by_share(sweep)}


def _by_share(sweep: list[Row]) -> dict[str, Any]:
    """Costs by unit and share, as the metrics file keeps them."""
    kept = ("cost_without", "cost_with", "clean_rejected")
    return {
        unit: {f"{line['share']:g}": {name: line[name] for name in kept} for line in sweep if line["unit"] == unit}
        for unit in UNITS
    }


def _adaptive(
    cell: Cell, suite: dict[str, Any], detector: str, images: Tensor, eps: float, rejection: Rejection
) -> dict[str, Any]:
    """The suite's attack and every adaptive one in its ball, on the same images, and the worst of all by image."""
    aware, name = cell.aware, suite["name"]
    rows = np.searchsorted(cell.splits.test.rows, aware.subset.rows)
    clean = cell.clean["test"][detector].where(rows)
    found = {"unaware": aware.answers(images[rows])[detector]}
    for attack, said in aware.against(detector, eps, suite["norm"]).items():
        cell.tables.note(aware.subset, f"{name}+{attack}", {detector: said})
        found[attack] = said
    found["worst"] = least_suspicious(clean, list(found.values()))
    held_out = cell.clean["val"][detector].scores
    record = {attack: left_of(clean, said, held_out, **cell.intervals) for attack, said in found.items()}
    places = {
        "unaware": Place(name, detector, "unaware", "paired"),
        "worst": Place(name, detector, "aware", "paired"),
    }
    for attack, place in places.items():
        sides = Sides(clean, found[attack])
        record[attack]["per_class"] = by_class(clean, sides.attacked, cell.splits.test.classes, predicted=False)
        record[attack] |= _priced(cell, rejection, place, sides)
    return record


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
