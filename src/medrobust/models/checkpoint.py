"""Checkpoints: `model.safetensors` beside a `card.json` that says what it is. Nothing is ever unpickled.

Each is bound to the other: the card has the weights' sha256, and the weights' header repeats the card's `model`
and `classes`, so that class names that somebody sorted by hand do not give right logits to wrong names.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import atomic_dir, file_hash, read_json, write_json
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier

PACKAGES = ("medrobust", "torch", "torchvision", "timm", "kornia")
#: The card's keys that the weights' header repeats, and the header's one key that has them, as JSON.
BOUND, HEADER = ("model", "classes"), "medrobust"


def save(folder: Path | str, classifier: Classifier, model: ModelParams, card: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: for instance `data/checkpoints/resnet34/adv`.
        classifier: its parameters and buffers are stored in float32.
        model: the block that builds it again.
        card: what else a reader should know (regime, params, data and split hashes, metrics).
    """
    with atomic_dir(folder) as temporary:
        weights = temporary / "model.safetensors"
        own = {"model": model.model_dump(include={"timm", "image_size", "head"}), "classes": classifier.classes}
        state = {key: value.contiguous().cpu() for key, value in classifier.state_dict().items()}
        save_file(state, weights, {HEADER: _bound(own)})
        facts = {
            **own,
            **card,
            "versions": {name: version(name) for name in PACKAGES},
            "sha256": file_hash(weights),
        }
        write_json(temporary / "card.json", facts)


def load(folder: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """The classifier of a checkpoint folder, in eval mode on `device`.

    Raises:
        UserError: a file is missing, the card and the weights do not speak of each other, or these versions of
            medrobust and timm build another network.
    """
    path, weights = Path(folder) / "card.json", Path(folder) / "model.safetensors"
    card = read_json(path)
    if not weights.is_file():
        raise UserError(str(weights), "no such file", "Run `dvc repro` or `dvc pull`")
    if not isinstance(card, dict) or file_hash(weights) != card.get("sha256"):
        raise UserError(str(weights), "is not the file that card.json describes", "Run `dvc checkout`")
    with safe_open(weights, "pt") as file:
        header = (file.metadata() or {}).get(HEADER)
    if header is None:
        found = "its header has no classes, so nothing shows that those of card.json are in the logits' order"
        raise UserError(str(weights), found, "It is of an earlier version: run `dvc repro`, which trains it anew")
    if _bound(card) != header:
        found = f"says {_bound(card)}, but the weights were written as {header}"
        raise UserError(str(path), found, "Run `dvc checkout`; a trained model's classes cannot be changed")
    try:
        classifier = build_classifier(ModelParams(weights="none", **card["model"]), card["classes"])
        classifier.load_state_dict(load_file(weights))
    except (ValueError, RuntimeError) as error:  # of pydantic and of torch
        first = str(error).strip().splitlines()[0]
        remedy = f"It was written with {card.get('versions')}: install these, or train it anew"
        raise UserError(str(path), f"these versions build another network ({first})", remedy) from None
    return classifier.to(device).eval()


def _bound(card: dict[str, Any]) -> str:
    return json.dumps({key: card.get(key) for key in BOUND}, sort_keys=True)
