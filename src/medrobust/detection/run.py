"""A detection cell: fit the detectors of one model, and test them against unaware and aware attackers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON, TABLES, table_hashes
from medrobust.core.params.detection import DetectParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import write_metrics
from medrobust.detection.adaptive.runs import AdaptiveRuns
from medrobust.detection.attacked_images import SuiteAttack, changed_images
from medrobust.detection.cost_tables import (
    UNITS,
    CleanAndAttacked,
    Row,
    Thresholds,
    choose_thresholds,
    costs_by_share,
    costs_by_threshold,
    prices_of,
    published_measure,
)
from medrobust.detection.costly_images import cost_attack, costliest_images
from medrobust.detection.fitting import Splits, fit_guard
from medrobust.detection.guard import Guard, save_guard, score_images
from medrobust.detection.measures import (
    RATES,
    ScoredImages,
    by_class,
    clean_threshold,
    false_alarms,
    least_suspicious,
    successful,
    summarise,
    summarise_evasion,
)
from medrobust.detection.result_tables import DetectionTables, RowLabel
from medrobust.detection.risk import Prices


@dataclass(frozen=True)
class DetectionOutputs:
    """Paths that a cell writes: the fitted guard, scores per image, metrics, and a folder of tables for plots."""

    guard: Path
    scores: Path
    metrics: Path
    plots: Path


@dataclass(frozen=True)
class DetectionCell:
    """One guarded model and its images; `clean` has scores by split ("val", "test") and detector."""

    model: nn.Module
    splits: Splits
    guard: Guard
    prices: Prices
    params: DetectParams
    report: ReportParams
    clean: dict[str, dict[str, ScoredImages]]
    adaptive: AdaptiveRuns
    tables: DetectionTables

    @property
    def intervals(self) -> dict[str, Any]:
        return {"resamples": self.report.bootstrap, "confidence": self.report.confidence}

    def score(self, split: str, images: Tensor | None = None) -> dict[str, ScoredImages]:
        return score_images(self.model, self.guard, getattr(self.splits, split), self.splits.seed, images)


def run_detection(
    model: nn.Module, splits: Splits, plan: dict[str, Any], out: DetectionOutputs, *, ordered: bool,
    params: DetectParams, report: ReportParams, made_on: dict[str, Any],
) -> None:  # fmt: skip
    """Fit, test and write one cell, for a model on its device and in eval mode.

    `plan` is that of `plan.make_plan`. `ordered` classes are grades. `made_on` has the hashes that the metrics
    carry (core/lineage.py), that of the model's weights among them.
    """
    val, test = (part.evenly_spaced(params.test_images) for part in (splits.val, splits.test))
    splits = replace(splits, val=val, test=test)
    guard, guides = fit_guard(model, splits, plan, params, made_on["weights"])
    few = test.evenly_spaced(params.adaptive.images)
    adaptive = AdaptiveRuns(model, few, guard, guides, params.adaptive, splits.seed)
    prices = prices_of(params.risk, len(test.classes), ordered=ordered)
    cell = DetectionCell(model, splits, guard, prices, params, report, {}, adaptive, DetectionTables())
    for split in ("val", "test"):
        cell.clean[split] = cell.score(split)
    cell.tables.add_scores(test, "clean", cell.clean["test"])
    record: dict[str, Any] = {
        "n": len(test),
        "patients": len(np.unique(test.patients)),
        "fpr": params.fpr,
        "temperature": guard.temperature,
        "suites": {
            name: _test_suite(cell, name, plan["suites"][name], eps) for name, eps in params.suites.items()
        },
        MADE_ON: made_on,
    }
    if params.adaptive.images and "ood" in params.adaptive.attacks:
        record["ood"] = _test_off_anatomy(cell)
    save_guard(out.guard, guard)
    cell.tables.write(out.scores, out.plots)
    record[TABLES] = table_hashes(*sorted(out.plots.glob("*.csv")))
    write_metrics(out.metrics, record, dvc_metrics(record, next(iter(guard.detectors))))


def dvc_metrics(record: dict[str, Any], detector: str) -> dict[str, float]:
    """The metrics that DVC shows: the worst AUROC over suites of one detector, for unaware and aware attackers.

    Both are of successful attacks, as in the report: detecting an attack that fails is worth nothing.
    """
    rows = [suite[detector] for suite in record["suites"].values()]
    unaware = [(row["successful"].get("auroc"), row["successful"].get("auroc_ci")) for row in rows]
    worst = [row["adaptive"]["worst"] for row in rows if "adaptive" in row]
    aware = [(row["successful_auroc"], row["successful_auroc_ci"]) for row in worst]
    shown = {}
    for name, pairs in (("auroc", unaware), ("auroc_aware", aware)):
        if known := [pair for pair in pairs if pair[0] is not None]:
            shown[name] = round_to_interval(*min(known))
    return shown


def _test_suite(cell: DetectionCell, name: str, suite: dict[str, Any], eps: float) -> dict[str, Any]:
    """Every detector against one suite's attack, unaware and aware, with the costs."""
    attack, aimed = SuiteAttack(suite, eps, cell.splits.train), cost_attack(suite, eps)
    images, attacked, costly = {}, {}, {}
    for split in ("val", "test"):
        subset, seed = getattr(cell.splits, split), cell.splits.seed
        found = changed_images(cell.model, subset, attack, seed, f"{name} on {split}")
        worse = costliest_images(cell.model, subset, found, aimed, cell.prices.errors, seed, f"costs of {split}")
        images[split] = [found, worse]
        attacked[split], costly[split] = cell.score(split, found), cell.score(split, worse)
    cell.tables.add_scores(cell.splits.test, name, attacked["test"])
    cell.tables.add_scores(cell.splits.test, f"{name}+costly", costly["test"])
    record: dict[str, Any] = {"eps": eps}
    for detector, fitted in cell.guard.detectors.items():
        val, test = (
            CleanAndAttacked(cell.clean[split][detector], attacked[split][detector], (costly[split][detector],))
            for split in ("val", "test")
        )
        thresholds = choose_thresholds(val, fitted.threshold, cell.prices, cell.params.risk.shares)
        row = _unaware(cell, test, fitted.threshold, val.clean.scores)
        if fitted.detector.supervised:
            row["seen"] = name == cell.params.seen
        row |= _costs(cell, thresholds, RowLabel(name, detector, "unaware", "all"), test)
        if cell.params.adaptive.images:
            row["adaptive"] = _aware(cell, suite, detector, images["test"], eps, thresholds)
        record[detector] = row
    return record


def _unaware(
    cell: DetectionCell, images: CleanAndAttacked, threshold: float, val_scores: np.ndarray
) -> dict[str, Any]:
    """Measures on all and on successful attacks, and what thresholds of validation images do on test images."""
    clean, attacked, classes = images.clean, images.attacked, cell.splits.test.classes
    hit = successful(clean, attacked)
    row = summarise(clean, attacked, **cell.intervals)
    row["successful"] = summarise(clean, attacked.where(hit), **cell.intervals)
    row["per_class"] = by_class(clean, attacked.where(hit), classes, predicted=False)
    row["per_predicted"] = by_class(clean, attacked.where(hit), classes, predicted=True)
    row["threshold"] = threshold
    at_threshold = false_alarms(clean, threshold, cell.report.confidence)
    row |= {"test_fpr": at_threshold["rate"], "test_fpr_ci": at_threshold["ci"]}
    row["false_alarms"] = {
        f"{rate:g}": false_alarms(clean, clean_threshold(val_scores, rate), cell.report.confidence)
        for rate in RATES
    }
    row["test_tpr"] = float((attacked.scores > threshold).mean())
    row["test_tpr_successful"] = float((attacked.scores[hit] > threshold).mean()) if hit.any() else None
    return row


def _costs(
    cell: DetectionCell, thresholds: Thresholds, label: RowLabel, images: CleanAndAttacked
) -> dict[str, Any]:
    """The published risk, and the cost by unit and share of attacked images; also adds rows to the tables."""
    risk = costs_by_share(images, thresholds, cell.prices)
    cell.tables.add_curves(label, images)
    cell.tables.add_costs(label, risk, costs_by_threshold(images, thresholds, cell.prices))
    return {"published_risk": published_measure(images, thresholds.guard), "risk": _by_unit(risk)}


def _by_unit(rows: list[Row]) -> dict[str, Any]:
    names = ("cost_without", "cost_with", "clean_rejected")
    return {
        unit: {f"{row['share']:g}": {name: row[name] for name in names} for row in rows if row["unit"] == unit}
        for unit in UNITS
    }


def _aware(
    cell: DetectionCell, suite: dict[str, Any], detector: str, images: list[Tensor], eps: float,
    thresholds: Thresholds,
) -> dict[str, Any]:  # fmt: skip
    """The suite's attack, every adaptive one in its ball on the same images, and the worst case per image.

    `images` are all test images under the suite's attack, and under its costliest form.
    """
    adaptive, name = cell.adaptive, suite["name"]
    rows = np.searchsorted(cell.splits.test.rows, adaptive.subset.rows)
    clean = cell.clean["test"][detector].where(rows)
    unaware, costly = (adaptive.score(made[rows])[detector] for made in images)
    attacked = {"unaware": unaware}
    for attack, scored in adaptive.attack(detector, eps, suite["norm"]).items():
        cell.tables.add_scores(adaptive.subset, f"{name}+{attack}", {detector: scored})
        attacked[attack] = scored
    attacked["worst"] = least_suspicious(clean, list(attacked.values()))
    val_scores = cell.clean["val"][detector].scores
    record = {
        attack: summarise_evasion(clean, scored, val_scores, **cell.intervals)
        for attack, scored in attacked.items()
    }
    known = tuple(attacked[attack] for attack in cell.params.adaptive.attacks if attack in attacked)
    known += adaptive.costly(detector, eps, suite["norm"], cell.prices.errors)
    labels = {
        "unaware": (RowLabel(name, detector, "unaware", "paired"), (costly,)),
        "worst": (RowLabel(name, detector, "aware", "paired"), (unaware, costly, *known)),
    }
    for attack, (label, versions) in labels.items():
        pair = CleanAndAttacked(clean, attacked[attack], versions)
        hits = pair.attacked.where(successful(clean, pair.attacked))
        record[attack]["per_class"] = by_class(clean, hits, cell.splits.test.classes, predicted=False)
        record[attack] |= _costs(cell, thresholds, label, pair)
    return record


def _test_off_anatomy(cell: DetectionCell) -> dict[str, Any]:
    """How many off-anatomy images reach a confident class, and how each detector ranks those."""
    images, confident = cell.adaptive.off_anatomy()
    scored = cell.adaptive.score(images)
    cell.tables.add_scores(cell.adaptive.subset, "ood", scored)
    record: dict[str, Any] = {"n": len(confident), "reached": float(confident.mean())}
    for detector, fitted in cell.guard.detectors.items():
        reached = scored[detector].where(confident)
        row = summarise(cell.clean["test"][detector], reached, **cell.intervals)
        accepted = float((reached.scores <= fitted.threshold).mean()) if len(reached) else None
        record[detector] = {**row, "accepted": accepted}
    return record
