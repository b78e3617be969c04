"""The cases of a run: chosen test images with the answers of all models, clean and attacked, as plain values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen, margin
from medrobust.cases.attacked import AttackedImage, attack_again
from medrobust.cases.choice import choose_images, worst_wrong
from medrobust.cases.pictures import change_levels, levels, picture, stacked
from medrobust.core.runtime import progress
from medrobust.data.store import Subset
from medrobust.detection.guard import Guard, score_images
from medrobust.explain.maps import choose_layer, explanation_maps
from medrobust.models.feature_maps import MapLayer
from medrobust.models.predict import log_probabilities

BATCH = 64


@dataclass(frozen=True)
class ShownModel:
    """A model (in eval mode, on its device) with its name in the transfer matrix, and its guard if it has one."""

    name: str
    model: nn.Module
    guard: Guard | None = None


@dataclass(frozen=True)
class Answers:
    """Answers to n images: probabilities n×K, margins n, maps n×H×W, scores n of the guard's first detector."""

    probabilities: np.ndarray
    margins: np.ndarray
    maps: np.ndarray | None
    scores: np.ndarray | None


def collect_cases(
    models: list[ShownModel], test: Subset, train: Subset, suites: list[dict[str, Any]], *, count: int, seed: int,
    cells: int, ordered: bool,
) -> dict[str, Any]:  # fmt: skip
    """Test images (see `choose_images`) with every model's answers under every suite, as the page reads them.

    An image is named by its row in the manifest, and a patient by a number that counts test patients from 1: the
    page holds no id. `cells` is the least number of cells per side of Grad-CAM's layer; `ordered` says whether the
    classes are grades.
    """
    logprobs = [log_probabilities(each.model, test) for each in models]
    worst = [worst_wrong(test.labels, each.argmax(1), each.max(1), ordered=ordered) for each in logprobs]
    chosen, errors = choose_images(worst, len(test), count)
    subset = test.take(chosen)
    images = subset.batch(range(len(subset)))
    cases: list[dict[str, Any]] = [
        {
            "image": int(row),
            "patient": number,
            "label": int(label),
            "picture": picture(levels(image)),
            "models": {},
        }
        for row, number, label, image in zip(
            subset.rows, _patient_numbers(test, subset), subset.labels, images.numpy(), strict=True
        )
    ]
    shown = []
    for model in progress(models, "cases", unit="models"):
        facts, parts = _cases_of(model, subset, train, suites, seed=seed, cells=cells)
        shown.append(facts)
        for case, part in zip(cases, parts, strict=True):
            case["models"][model.name] = part
    names = [{"name": suite["name"], "norm": suite["norm"], "eps": suite["eps"]} for suite in suites]
    return {"classes": test.classes, "suites": names, "models": shown, "errors": errors, "cases": cases}


def _patient_numbers(test: Subset, subset: Subset) -> list[int | None]:
    """The number of each image's patient among all test patients, from 1; None if the patient is not known."""
    known = dict.fromkeys(name for name in test.patients if not name.startswith("?"))
    numbers = {name: number for number, name in enumerate(known, 1)}
    return [numbers.get(name) for name in subset.patients]


def _cases_of(
    shown: ShownModel, subset: Subset, train: Subset, suites: list[dict[str, Any]], *, seed: int, cells: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts about a model, and its answers to each image."""
    images = subset.batch(range(len(subset)))
    found = choose_layer(shown.model, images[:1].to(_device(shown.model)), cells)
    layer = found[0] if found else None
    facts = {"name": shown.name, "layer": layer.name if layer else None, "detector": _detector(shown.guard)}
    clean = _answers(shown, subset, images, layer, seed)
    attacked = {
        suite["name"]: attack_again(shown.model, subset, suite, seed=seed, train=train) for suite in suites
    }
    owners = [row for row in range(len(subset)) for each in attacked.values() for _ in each[row].versions]
    versions = [
        v.result.image for row in range(len(subset)) for each in attacked.values() for v in each[row].versions
    ]
    after = _answers(shown, subset.take(np.array(owners)), torch.stack(versions), layer, seed) if owners else None
    parts, start = [], 0
    for row, image in enumerate(images):
        mine = {name: each[row] for name, each in attacked.items()}
        number = sum(len(each.versions) for each in mine.values())
        parts.append(_part(image, mine, clean, row, after, range(start, start + number)))
        start += number
    return facts, parts


def _part(
    image: Tensor, attacked: dict[str, AttackedImage], clean: Answers, row: int, after: Answers | None, rows: range
) -> dict[str, Any]:
    """One model's answers to one image: `rows` are those of its attacked versions in `after`, suite by suite."""
    changes: list[np.ndarray] = []
    maps = [] if clean.maps is None else [_map_levels(clean.maps[row])]
    suites: dict[str, Any] = {}
    for name, each in attacked.items():
        entries = []
        for version in each.versions:
            position = rows[len(changes)]
            change = (version.result.image - image).numpy()
            largest = float(np.abs(change).max())
            changes.append(change_levels(change, largest))
            assert after is not None
            if after.maps is not None:
                maps.append(_map_levels(after.maps[position]))
            facts = {"eps": version.eps, "attack": version.attack, "distance": _short(version.result.distance)}
            entries.append({**facts, "largest": largest, **_answer(after, position)})
        suites[name] = {"fooled_at": each.fooled_at, "fooled_by": each.fooled_by, "versions": entries}
    return {**_answer(clean, row), "suites": suites, "changes": stacked(changes), "maps": stacked(maps)}


def _answer(answers: Answers, row: int) -> dict[str, Any]:
    """One row of answers as plain values."""
    return {
        "probabilities": [round(float(value), 4) for value in answers.probabilities[row]],
        "margin": _short(answers.margins[row]),
        "score": None if answers.scores is None else _short(answers.scores[row]),
    }


def _answers(shown: ShownModel, subset: Subset, images: Tensor, layer: MapLayer | None, seed: int) -> Answers:
    """The answers to images n×C×H×W, the versions of the subset's n images."""
    device = _device(shown.model)
    with frozen(shown.model), torch.no_grad():
        logits = torch.cat([shown.model(batch.to(device)).cpu() for batch in images.split(BATCH)])
    probabilities, gaps = logits.double().softmax(1), margin(logits, subset.targets(range(len(subset))))
    maps = (
        explanation_maps(shown.model, images.to(device), logits.argmax(1), layer).get("gradcam") if layer else None
    )
    scores = None
    if shown.guard:
        scores = next(iter(score_images(shown.model, shown.guard, subset, seed, images).values())).scores
    return Answers(probabilities.numpy(), gaps.numpy(), maps, scores)


def _detector(guard: Guard | None) -> dict[str, Any] | None:
    """The detector that rejects images, its threshold, and the share of clean validation images above it."""
    if guard is None:
        return None
    name, fitted = next(iter(guard.detectors.items()))
    return {"name": name, "threshold": fitted.threshold, "fpr": guard.fpr}


def _map_levels(heat: np.ndarray) -> np.ndarray:
    return (heat * 255).round().astype(np.uint8)


def _short(value: float) -> float:
    """A number to four digits, as the page shows it."""
    return float(f"{value:.4g}")


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
