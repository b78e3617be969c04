"""The record of a finished model on labelled images that it was not trained for: clean, attacked, detectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.core.metrics import rate_estimates
from medrobust.data.store import Subset
from medrobust.detection.guard import Guard, score_images
from medrobust.detection.measures import false_alarms
from medrobust.explain.attacked_images import attacked_images
from medrobust.models.patient import PatientModel
from medrobust.models.predict import log_probabilities
from medrobust.patients.attack import single_image_attack
from medrobust.patients.evaluate import predict_patients, prediction_summary
from medrobust.patients.subsets import PatientSubset


@dataclass(frozen=True)
class Settings:
    """How a model is evaluated.

    Attributes:
        ordered: whether the classes are grades.
        resamples: of whole patients, for intervals of `confidence`.
        seed: of attacks and detectors.
        train: images that fitted attacks are fitted on; None: such an attack cannot run.
    """

    ordered: bool
    resamples: int
    confidence: float
    seed: int
    train: Subset | None = None


@dataclass(frozen=True)
class Evaluation:
    """A record, and the tables behind it: predictions as `clean`, attempts by the name of their suite."""

    record: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def evaluate_images(
    model: nn.Module, guard: Guard | None, subset: Subset, suites: Sequence[dict[str, Any]], settings: Settings
) -> Evaluation:
    """Evaluate a model image by image; intervals are over patients.

    The record has `n`, `patients`, `counts` (class -> `images`, `patients`), `clean` (as in metrics/train, with
    `auroc_ci`), `attacks` (suite -> radius -> `robust_accuracy`, `robust_balanced_accuracy`, each with its
    interval) and `detectors` (name -> `threshold`, `nominal`, `false_alarms` with its interval, and under
    `rejected_attacked` the share of attacked images that is rejected, by suite).
    """
    logprobs = log_probabilities(model, subset)
    scores = {f"logprob_{k}": logprobs[:, k] for k in range(logprobs.shape[1])}
    facts = {"id": subset.ids, "patient": subset.patients, "label": subset.labels, "pred": logprobs.argmax(1)}
    tables = {"clean": pd.DataFrame({**facts, **scores})}
    attacks, detectors = {}, _detectors(model, guard, subset, settings)
    for suite in suites:
        attempts = attack_suite(model, subset, suite, seed=settings.seed, train=settings.train)
        tables[suite["name"]] = attempts
        attacks[suite["name"]] = _at_radii(attempts, suite, subset.classes, settings)
        if guard:
            changed = attacked_images(
                model, subset, suite, attempts, suite["eps"][-1], seed=settings.seed, train=settings.train
            )
            for name, scored in score_images(model, guard, subset, settings.seed, changed).items():
                above = float((scored.scores > guard.detectors[name].threshold).mean())
                detectors[name].setdefault("rejected_attacked", {})[suite["name"]] = above
    record = {
        "n": len(subset), "patients": len(set(subset.patients)), "counts": _counts(subset),
        "clean": _summary(tables["clean"], subset.classes, settings), "attacks": attacks, "detectors": detectors,
    }  # fmt: skip
    return Evaluation(record, tables)


def evaluate_patients(
    model: PatientModel, groups: Sequence[PatientSubset], suites: Sequence[dict[str, Any]], settings: Settings
) -> Evaluation:
    """Evaluate a model of patients; its record has `n` (patients), `clean` and `attacks` as in `evaluate_images`.

    A suite with an attack that acts on single images is left out.
    """
    clean = predict_patients(model, list(groups))
    tables, attacks = {"clean": clean}, {}
    for suite in suites:
        if single_image_attack(suite):
            continue
        parts = [
            attack_suite(model, group, suite, seed=settings.seed, batch_size=group.rows_per_pass)
            for group in groups
        ]
        tables[suite["name"]] = pd.concat(parts, ignore_index=True)
        attacks[suite["name"]] = _at_radii(tables[suite["name"]], suite, model.classes, settings)
    record = {"n": len(clean), "clean": _summary(clean, model.classes, settings), "attacks": attacks}
    return Evaluation(record, tables)


def _summary(table: pd.DataFrame, classes: list[str], settings: Settings) -> dict[str, Any]:
    return prediction_summary(
        table, classes, ordered=settings.ordered, resamples=settings.resamples, confidence=settings.confidence
    )


def _counts(subset: Subset) -> dict[str, dict[str, int]]:
    found = {}
    for number, name in enumerate(subset.classes):
        rows = subset.labels == number
        found[name] = {"images": int(rows.sum()), "patients": len(set(subset.patients[rows]))}
    return found


def _at_radii(
    attempts: pd.DataFrame, suite: dict[str, Any], classes: list[str], settings: Settings
) -> dict[str, dict[str, Any]]:
    """The worst case at each radius of a suite."""
    table, found = worst_case(attempts, suite["eps"]), {}
    for eps in suite["eps"]:
        part = table[table["eps"] == eps]
        right, labels = ~part["fooled"].to_numpy(dtype=bool), part["label"].to_numpy()
        patients = part["patient"].to_numpy().astype(str)
        rates = rate_estimates(right, labels, patients, classes, confidence=settings.confidence)
        found[f"{eps:g}"] = {
            f"robust_{name}{end}": value
            for name in ("accuracy", "balanced_accuracy")
            for end, value in zip(("", "_ci"), rates[name], strict=True)
        }
    return found


def _detectors(model: nn.Module, guard: Guard | None, subset: Subset, settings: Settings) -> dict[str, Any]:
    """False alarms of each detector of the guard on these clean images."""
    if guard is None:
        return {}
    found = {}
    for name, scored in score_images(model, guard, subset, settings.seed).items():
        threshold = guard.detectors[name].threshold
        alarms = false_alarms(scored, threshold, settings.confidence)
        found[name] = {
            "threshold": threshold, "nominal": guard.fpr, "false_alarms": alarms["rate"],
            "false_alarms_ci": alarms["ci"],
        }  # fmt: skip
    return found
