"""Evaluate a finished model on labelled images of other origin, without training: `medrobust.evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medrobust.core.errors import UserError
from medrobust.core.lineage import suite_hash
from medrobust.core.records import read_json
from medrobust.data.inputs import Fault, InputImage
from medrobust.data.sources.labels import normalized
from medrobust.external.evaluate import Settings, evaluate_images
from medrobust.inference.images import find_suite, subset_of
from medrobust.inference.loaded import GuardChoice, LoadedModel, open_model
from medrobust.models.use import SUITES

#: Unknown labels that a message names.
NAMED = 5


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
        The record of `external.evaluate.evaluate_images` (`clean`, `attacks`, `detectors`, ...), and `model` (hash
        of the weights), `suites` (name -> hash), `skipped` (file -> reason). Intervals are over patients.

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
    if not images:
        file, reason = next(iter(skipped.items()), (str(data), "no image has been found"))
        raise UserError(file, reason, "Use labelled images that can be read")
    subset = subset_of(images, _indices(model, images, data, labels), model.classes)
    use, chosen = model.described(), [find_suite(model, name) for name in _names(model, suites)]
    settings = Settings(use.ordered, use.bootstrap, use.confidence, seed)
    result = evaluate_images(model.network, model.guard, subset, chosen, settings)
    hashes = {suite["name"]: suite_hash(suite) for suite in chosen}
    return {"model": model.sha256, "suites": hashes, "skipped": skipped, **result.record}


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
        rest = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        found = f"labels that are not a class of the model: {', '.join(unknown[:NAMED])}{rest}"
        raise UserError(str(data), found, remedy)
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
