"""Images of a user as a subset, which attacks and measures read like one of the prepared data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.records import read_json
from medrobust.data.inputs import InputImage
from medrobust.data.store import Subset
from medrobust.inference.loaded import LoadedModel
from medrobust.models.use import SUITES


def subset_of(inputs: Sequence[InputImage], labels: Sequence[int], classes: list[str]) -> Subset:
    """The images with their labels (indices into `classes`); an image without a known patient is one of its own.

    Raises:
        UserError: there is no image, or one is a tensor, which has no grid of 8 bits.
    """
    if not inputs:
        raise UserError("images", "there is none", "Use at least one image")
    if any(one.pixels.dtype != np.uint8 for one in inputs):
        raise UserError("images", "tensors of floats", "Use files, pictures or uint8 arrays")
    # Not only the file's name: an array has none, and a volume has many slices.
    ids = np.array([f"{number:06d} {one.file} {one.slice}" for number, one in enumerate(inputs)])
    patients = np.array([one.patient or one.volume or f"?{name}" for one, name in zip(inputs, ids, strict=True)])
    pixels = np.stack([one.pixels for one in inputs])
    return Subset(pixels, np.arange(len(inputs)), np.asarray(labels, dtype=np.int64), ids, patients, classes)


def find_suite(model: LoadedModel, suite: str | None, eps: Sequence[float] | None = None) -> dict[str, Any]:
    """A suite that the model was evaluated with, by its name, with other radii if `eps` is given.

    None as the name stands for the first suite.

    Raises:
        UserError: the model's folder has no suites, or none of this name, or a radius is not above 0.
    """
    path = (model.folder or Path()) / SUITES
    if model.folder is None or not path.is_file():
        remedy = "Use a published folder (models/B/R), which `dvc repro publish` writes"
        raise UserError(str(model.folder or "model"), f"has no {SUITES}", remedy)
    known: dict[str, Any] = read_json(path)
    name = suite if suite is not None else next(iter(known), "")
    if name not in known:
        remedy = f"The folder has: {', '.join(known) or 'none'}"
        raise UserError("suite", f"there is no {name!r} in {path}", remedy)
    if eps and min(eps) <= 0:
        raise UserError("eps", f"{min(eps):g}", "Use a radius above 0 (pixels are in [0, 1]; 8/255 is accepted)")
    return {**known[name], **({"eps": sorted({*eps})} if eps else {})}


def class_index(model: LoadedModel, label: str) -> int:
    """The index of a class.

    Raises:
        UserError: the model does not know it.
    """
    if label not in model.classes:
        raise UserError("label", f"{label!r} is not a class", f"The classes are: {', '.join(model.classes)}")
    return model.classes.index(label)
