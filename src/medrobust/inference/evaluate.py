"""Evaluate a finished model on labelled images of other origin, without training: `medrobust.evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.core.errors import UserError
from medrobust.core.metrics import classification_summary, rate_estimates
from medrobust.core.records import read_json
from medrobust.data.inputs import Fault, InputImage
from medrobust.data.sources.labels import normalized
from medrobust.data.store import Subset
from medrobust.detection.guard import score_images
from medrobust.detection.measures import false_alarms
from medrobust.explain.attacked_images import attacked_images
from medrobust.inference.images import find_suite, subset_of
from medrobust.inference.loaded import GuardChoice, LoadedModel, open_model
from medrobust.models.predict import log_probabilities
from medrobust.models.use import SUITES


def evaluate(
    data: Path | str,
    model: nn.Module | Path | str,
    suites: Sequence[str] | None = None,
    *,
    guard: GuardChoice = None,
    labels: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The record of a model on labelled images: clean, under attack suites, and its detectors.

    Args:
        data: a table with the columns `path`, `label` and, if known, `patient`; or a folder with one folder per
            class.
        model, guard: as in `predict`.
        suites: names of suites in the model's folder; None = all, [] = none.
        labels: label of the data -> class of the model, for labels that are not spelled like a class.
        seed: of attacks and detectors.

    Returns:
        `clean` (as in metrics/train), `attacks` (suite -> radius -> `robust_accuracy`,
        `robust_balanced_accuracy`, each with its interval), `detectors` (name -> `false_alarms`, `threshold`, and
        the share of attacked images that is rejected by suite), `n`, `patients`, `skipped` (file -> reason).
        Intervals are over patients.

    Raises:
        UserError: no image has a label, a label is not a class of the model, or as in `predict`.
    """
    loaded = open_model(model, guard)
    return evaluate_model(loaded, Path(data), suites, labels=labels or {}, seed=seed)


def evaluate_model(
    model: LoadedModel, data: Path, suites: Sequence[str] | None, *, labels: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """The same for a model that is open already."""
    found = list(model.reader().find([data]).read())
    skipped = {one.file: one.reason for one in found if isinstance(one, Fault)}
    images = [one for one in found if isinstance(one, InputImage)]
    subset = subset_of(images, _indices(model, images, data, labels), model.classes)
    use = model.described()
    rates: dict[str, Any] = {"confidence": use.confidence}
    clean = classification_summary(
        subset.labels, log_probabilities(model.network, subset), subset.patients, model.classes,
        ordered=use.ordered, resamples=use.bootstrap, **rates,
    )  # fmt: skip
    record: dict[str, Any] = {
        "model": model.sha256, "n": len(subset), "patients": len(set(subset.patients)), "skipped": skipped,
        "clean": clean, "attacks": {}, "detectors": _detectors(model, subset, seed),
    }  # fmt: skip
    for name in _names(model, suites):
        suite = find_suite(model, name)
        attempts = attack_suite(model.network, subset, suite, seed=seed)
        table = worst_case(attempts, suite["eps"])
        record["attacks"][name] = {
            f"{eps:g}": _rates(~table[table["eps"] == eps]["fooled"].to_numpy(dtype=bool), subset, use.confidence)
            for eps in suite["eps"]
        }
        if model.guard:
            changed = attacked_images(model.network, subset, suite, attempts, suite["eps"][-1], seed=seed)
            for detector, scored in score_images(model.network, model.guard, subset, seed, changed).items():
                above = float((scored.scores > model.guard.detectors[detector].threshold).mean())
                record["detectors"][detector].setdefault("rejected_attacked", {})[name] = above
    return record


def _indices(model: LoadedModel, images: Sequence[InputImage], data: Path, labels: Mapping[str, str]) -> list[int]:
    """The class of each image: its label in the table, or the name of the folder that it is in."""
    known = {normalized(name): number for number, name in enumerate(model.classes)}
    for label, name in labels.items():
        if name not in model.classes:
            remedy = f"The classes are: {', '.join(model.classes)}"
            raise UserError("labels", f"{label!r} is mapped to {name!r}, which is not a class", remedy)
        known[normalized(label)] = model.classes.index(name)
    named = [one.label or _folder_name(one, data) for one in images]
    if unknown := sorted({name for name in named if normalized(name) not in known}):
        remedy = f"Map them to one of {', '.join(model.classes)} (`--map LABEL=CLASS`)"
        raise UserError(str(data), f"labels that are not a class of the model: {', '.join(unknown)}", remedy)
    return [known[normalized(name)] for name in named]


def _folder_name(one: InputImage, data: Path) -> str:
    """The first folder below `data` in which an image is."""
    try:
        return Path(one.file).relative_to(data).parts[0]
    except ValueError:
        return ""


def _names(model: LoadedModel, suites: Sequence[str] | None) -> list[str]:
    if suites is not None:
        return list(suites)
    path = (model.folder or Path()) / SUITES
    return list(read_json(path)) if path.is_file() else []


def _rates(right: np.ndarray, subset: Subset, confidence: float) -> dict[str, Any]:
    rates = rate_estimates(right, subset.labels, subset.patients, subset.classes, confidence=confidence)
    found: dict[str, Any] = {}
    for name in ("accuracy", "balanced_accuracy"):
        found[f"robust_{name}"], found[f"robust_{name}_ci"] = rates[name]
    return found


def _detectors(model: LoadedModel, subset: Subset, seed: int) -> dict[str, Any]:
    """False alarms of each detector of the guard on these clean images."""
    if model.guard is None:
        return {}
    found = {}
    for name, scored in score_images(model.network, model.guard, subset, seed).items():
        threshold = model.guard.detectors[name].threshold
        alarms = false_alarms(scored, threshold, model.described().confidence)
        found[name] = {
            "threshold": threshold, "nominal": model.guard.fpr, "false_alarms": alarms["rate"],
            "false_alarms_ci": alarms["ci"],
        }  # fmt: skip
    return found
