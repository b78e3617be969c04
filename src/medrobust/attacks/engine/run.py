"""Run the suite of an attack cell and write its attempts, metrics and robust-accuracy curve."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from medrobust.attacks.engine.attempts import stored_accuracy, table_of, worst_case
from medrobust.attacks.engine.evaluate import attack_suite, named_attacks
from medrobust.attacks.engine.resume import resume_folder
from medrobust.attacks.engine.targeted import targeted_success
from medrobust.core import metrics
from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON, TABLES, table_hashes
from medrobust.core.params.report import ReportParams
from medrobust.core.rates import share_ci
from medrobust.core.records import write_metrics, write_table
from medrobust.core.runtime import process_number, say
from medrobust.data.store import Subset


@dataclass(frozen=True)
class AttackOutputs:
    """Where an attack cell writes."""

    records: Path
    metrics: Path
    curve: Path


def run_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], outs: AttackOutputs, *, bit_depth: int, seed: int,
    report: ReportParams, made_on: dict[str, str], train: Subset | None = None,
) -> None:  # fmt: skip
    """Evaluate a suite and write its records, metrics and robust-accuracy curve; under torchrun, rank 0 writes.

    `made_on` has the hashes that the records and metrics carry (core/lineage.py).
    """
    resume = resume_folder(model, subset, suite, seed=seed, bit_depth=bit_depth, train=train)
    attempts = attack_suite(model, subset, suite, seed=seed, bit_depth=bit_depth, resume=resume, train=train)
    if process_number() == 0:
        more = targeted_success(model, subset, suite, attempts, report)
        write_results(attempts, subset.classes, suite, outs, report, made_on, more)
        resume.clear()


def write_results(
    attempts: pd.DataFrame, classes: list[str], suite: dict[str, Any], outs: AttackOutputs, report: ReportParams,
    made_on: dict[str, str], more: dict[str, Any],
) -> None:  # fmt: skip
    """Write the records, the robust-accuracy curve, and the metrics with `more` entries."""
    table = worst_case(attempts, suite["eps"])
    points = [_point(table[table["eps"] == eps], classes, report) for eps in suite["eps"]]
    # The last bits of a margin may differ between two runs: a busy machine splits sums into other parts.
    records = attempts.round({"margin": 6})
    records.attrs[MADE_ON] = made_on
    write_table(outs.records, records)
    write_table(outs.curve, pd.DataFrame([{"eps": eps, **p} for eps, p in zip(suite["eps"], points, strict=True)]))
    summary = _summary(table, attempts, classes, suite, points)
    intervals = summary["robust_accuracy_ci"]
    shown = {
        f"robust@{eps}": round_to_interval(value, intervals[eps])
        for eps, value in summary["robust_accuracy"].items()
    }
    summary |= _first_attack(attempts, suite, report)
    write_metrics(outs.metrics, {**summary, **more, MADE_ON: made_on, TABLES: table_hashes(outs.curve)}, shown)


def write_not_fitted(outs: AttackOutputs, reason: str, made_on: dict[str, str]) -> None:
    """Write the outs of a model that could not be fitted: tables without rows, and the reason in the metrics."""
    if process_number() > 0:
        return
    say(f"nothing to attack: {reason}")
    write_table(outs.records, table_of([]))
    write_table(outs.curve, pd.DataFrame(columns=["eps", "robust_accuracy"]))
    write_metrics(outs.metrics, {"not_fitted": reason, MADE_ON: made_on}, {"verdict": "not fitted"})


def _point(table: pd.DataFrame, classes: list[str], report: ReportParams) -> dict[str, Any]:
    """The curve at one radius: accuracies and the recall of each class, with their intervals.

    Statistics that depend on which wrong class was predicted (F1, kappa) are left out: the suite looks for any
    wrong class, so that its records are far from the worst case of these.
    """
    labels, patients = table["label"].to_numpy(), table["patient"].to_numpy()
    right = ~table["fooled"].to_numpy(dtype=bool)
    estimates = metrics.rate_estimates(right, labels, patients, classes, confidence=report.confidence)
    point: dict[str, Any] = {}
    for name, (value, interval) in estimates.items():
        point |= dict(zip(metrics.curve_columns(name), (value, *(interval or (None, None))), strict=True))
    return point


def _first_attack(attempts: pd.DataFrame, suite: dict[str, Any], report: ReportParams) -> dict[str, Any]:
    """`first_attack` and the robust accuracy under it alone, if it is tried on every image at every radius.

    That is so for a one-step attack beside others: it is the cheapest and runs first, and its failure at a
    radius says nothing about smaller ones. {} for other suites.
    """
    (name, attack), *others = named_attacks(suite)
    if not others or attack.failure_covers_smaller_eps or not attack.respects_ball:
        return {}
    table = worst_case(attempts[attempts["attack"].isin(["natural", name])], suite["eps"])
    result: dict[str, Any] = {"first_attack": name, "first_attack_accuracy": {}, "first_attack_accuracy_ci": {}}
    for eps, part in table.groupby("eps"):
        right = ~part["fooled"].to_numpy(dtype=bool)
        labels, patients = part["label"].to_numpy(), part["patient"].to_numpy()
        result["first_attack_accuracy"][f"{eps:g}"] = float(right.mean())
        result["first_attack_accuracy_ci"][f"{eps:g}"] = share_ci(right, labels, patients, report.confidence)
    return result


def _summary(
    table: pd.DataFrame, attempts: pd.DataFrame, classes: list[str], suite: dict[str, Any],
    points: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    first = table.drop_duplicates("id")
    clean = metrics.confusion(first["label"].to_numpy(), first["clean_pred"].to_numpy(), len(classes))
    stored = stored_accuracy(attempts, suite["eps"])
    keyed = {f"{eps:g}": point for eps, point in zip(suite["eps"], points, strict=True)}
    return {
        "n": len(first),
        "patients": int(first["patient"].nunique()),
        "clean_accuracy": float(metrics.accuracy(clean)),
        "clean_balanced_accuracy": float(metrics.balanced_accuracy(clean)),
        "robust_accuracy": {eps: point["robust_accuracy"] for eps, point in keyed.items()},
        "robust_accuracy_ci": {eps: [point["low"], point["high"]] for eps, point in keyed.items()},
        "robust_balanced_accuracy": {eps: point["robust_balanced_accuracy"] for eps, point in keyed.items()},
        "robust_balanced_accuracy_ci": {
            eps: [point["balanced_low"], point["balanced_high"]] for eps, point in keyed.items()
        },
        "robust_accuracy_stored": {f"{eps:g}": v for eps, v in zip(suite["eps"], stored, strict=True)},
        "gradient_evaluations": int(attempts["gradients"].sum()),
        "queries": int(attempts["queries"].sum()),
    }
