"""Checkpoints: `model.safetensors` beside a `card.json` that says what it is. Nothing is ever unpickled."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from medrobust.errors import UserError
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.params.training import ModelParams
from medrobust.records import atomic_dir, file_hash, read_json, write_json

PACKAGES = ("medrobust", "torch", "torchvision", "timm", "kornia")


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
        save_file({key: value.contiguous().cpu() for key, value in classifier.state_dict().items()}, weights)
        facts = {
            "model": model.model_dump(include={"timm", "image_size", "head"}),
            "classes": classifier.classes,
            **card,
            "versions": {name: version(name) for name in PACKAGES},
            "sha256": file_hash(weights),
        }
        write_json(temporary / "card.json", facts)


def load(folder: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """The classifier of a checkpoint folder, in eval mode on `device`.

    Raises:
        UserError: a file is missing, or the weights are not those that the card speaks of.
    """
    folder = Path(folder)
    card = read_json(folder / "card.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(str(weights), "no such file", "Run `dvc repro` or `dvc pull`")
    if file_hash(weights) != card["sha256"]:
        raise UserError(str(weights), "is not the file that card.json describes", "Run `dvc checkout`")
    model = ModelParams(weights="none", **card["model"])
    classifier = build_classifier(model, card["classes"])
    classifier.load_state_dict(load_file(weights))
    return classifier.to(device).eval()
