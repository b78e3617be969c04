"""Attack images of a user with a suite of the model: `medrobust.attack`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.explain.attacked_images import attacked_images
from medrobust.inference.images import class_index, find_suite, subset_of
from medrobust.inference.inputs import to_batch, to_inputs
from medrobust.inference.loaded import LoadedModel, open_model


@dataclass(frozen=True)
class Attacked:
    """What a suite does to one image.

    Attributes:
        file, slice: where the image comes from.
        label: the class that the attack leads away from: the given one, or the model's answer for the clean image.
        clean_label: the model's answer for the clean image.
        success: whether an attack of the suite changes the answer, at the largest radius at most.
        eps: the smallest radius at which one does (0: wrong without an attack), in the suite's norm; the largest
            tried radius if none does.
        attack: name of that attack; "" if none does, `natural` for an image that is wrong without one.
        attacked_label, probability: the model's answer for the attacked image, and its probability.
        image, attacked: pixels C×S×S in [0, 1]. If no attack succeeds, `attacked` is the best try.
    """

    file: str
    slice: int | None
    label: str
    clean_label: str
    success: bool
    eps: float
    attack: str
    attacked_label: str
    probability: float
    image: np.ndarray
    attacked: np.ndarray


def attack(
    images: Any,
    model: nn.Module | Path | str,
    suite: str | None = None,
    *,
    eps: Sequence[float] | None = None,
    label: str | None = None,
    seed: int = 0,
) -> list[Attacked]:
    """Attack each image with all attacks of a suite, at every radius until one succeeds.

    Args:
        images, model: as in `predict`.
        suite: name of a suite in the model's folder; None = the first.
        eps: radii in the suite's norm and in units of the pixel range [0, 1]; None = those of the suite.
        label: true class of the images; None = the class that the model answers for each.
        seed: of random starts.

    Raises:
        UserError: an image cannot be used, or the model has no such suite or class.
    """
    loaded = open_model(model, guard=False)
    return attack_inputs(loaded, to_inputs(images, loaded), find_suite(loaded, suite, eps), label, seed)


def attack_inputs(
    model: LoadedModel, inputs: list[Any], suite: dict[str, Any], label: str | None, seed: int
) -> list[Attacked]:
    """The same for images that are read already, and a resolved suite."""
    with torch.no_grad():
        clean = torch.cat([model.network(to_batch([one], model.device)).argmax(1) for one in inputs]).tolist()
    labels = clean if label is None else [class_index(model, label)] * len(inputs)
    subset = subset_of(inputs, labels, model.classes)
    attempts = attack_suite(model.network, subset, suite, seed=seed)
    found = _smallest(worst_case(attempts, suite["eps"]))
    result = []
    for number, (one, row) in enumerate(zip(inputs, found.to_dict("records"), strict=True)):
        image = subset.batch([number])
        radius = row["eps"] if row["fooled_by"] != "natural" else 0.0
        changed = image
        if radius > 0:
            changed = attacked_images(
                model.network, subset.take(np.array([number])), suite, attempts, radius, seed=seed
            )
        with torch.no_grad():
            probabilities = (
                model.network(changed.to(model.device)).double().div(model.temperature or 1.0).softmax(1)
            )
        answer = int(probabilities.argmax())
        result.append(
            Attacked(
                one.file, one.slice, model.classes[labels[number]], model.classes[clean[number]],
                bool(row["fooled"]), radius, str(row["fooled_by"]), model.classes[answer],
                float(probabilities[0, answer]), image[0].numpy(), changed[0].numpy(),
            )
        )  # fmt: skip
    return result


def _smallest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each image's rows, one per radius, the one of the smallest radius that fools it, else of the largest."""
    ranked = table.assign(order=np.where(table["fooled"], table["eps"], -table["eps"]), stands=~table["fooled"])
    order = table["id"].drop_duplicates()
    best = ranked.sort_values(["stands", "order"], kind="stable").drop_duplicates("id").set_index("id")
    return best.loc[order].reset_index()
