"""Checkpoints: `model.safetensors` with the weights and `card.json` with their description; no pickle is read.

Each file is checked against the other. The card has the sha256 of the weights. The header of the weights repeats
`model` and `classes` of the card, so that class names which were reordered by hand are detected.
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
#: Keys of the card that the header of the weights repeats, as JSON under one key.
REPEATED, HEADER = ("model", "classes"), "medrobust"


def save(folder: Path | str, classifier: Classifier, model: ModelParams, card: dict[str, Any]) -> None:
    """Write a checkpoint, in float32. If writing fails, an earlier checkpoint is left unchanged.

    `model` is the block of params.yaml that rebuilds the classifier, `card` the further content of the card
    (regime, params, data and split hashes, metrics).
    """
    with atomic_dir(folder) as temporary:
        weights = temporary / "model.safetensors"
        own = {"model": model.model_dump(include={"timm", "image_size", "head"}), "classes": classifier.classes}
        state = {key: value.contiguous().cpu() for key, value in classifier.state_dict().items()}
        save_file(state, weights, {HEADER: _repeated(own)})
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
        UserError: a file is missing, the card and the weights do not belong together, or the installed versions
            of medrobust and timm build another network.
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
        found = "its header has no classes, so the order of those in card.json cannot be checked"
        raise UserError(str(weights), found, "It is of an earlier version. Run `dvc repro` to train it again")
    if _repeated(card) != header:
        found = f"has {_repeated(card)}, but the weights were written with {header}"
        raise UserError(str(path), found, "Run `dvc checkout`; the classes of a trained model cannot be changed")
    try:
        classifier = build_classifier(ModelParams(weights="none", **card["model"]), card["classes"])
        classifier.load_state_dict(load_file(weights))
    except (ValueError, RuntimeError) as error:  # from pydantic and torch
        first = str(error).strip().splitlines()[0]
        remedy = f"Install the versions that wrote it ({card.get('versions')}), or train it again"
        raise UserError(str(path), f"the installed versions build another network ({first})", remedy) from None
    return classifier.to(device).eval()


def _repeated(card: dict[str, Any]) -> str:
    return json.dumps({key: card.get(key) for key in REPEATED}, sort_keys=True)
