"""A model of patients: the network of the images and an aggregate, as one module and as a folder."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_dir, file_hash, read_json, write_json
from medrobust.models import checkpoint
from medrobust.models.aggregates import build_aggregate
from medrobust.models.classifier import Classifier

WEIGHTS = "aggregate.safetensors"


class PatientModel(nn.Module):
    """Logits of patients from all their images, which an attack changes together.

    `channels` is that of one image. The gradient reaches every image through the aggregate.
    """

    folder: Path | None = None  # that it was loaded from

    def __init__(self, network: Classifier, aggregate: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.aggregate, self.channels = network, aggregate, channels
        self.classes = network.classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits n×K of n patients with S images each, n×(S·C)×H×W in [0, 1]."""
        outputs = self.outputs(images.reshape(-1, self.channels, *images.shape[-2:]))
        logits: Tensor = self.aggregate(outputs.reshape(len(images), -1, outputs.shape[-1]))
        return logits

    def outputs(self, images: Tensor) -> Tensor:
        """What the aggregate reads of images N×C×H×W: features N×D, or log-probabilities N×K."""
        if self.aggregate.needs_features:
            return self.network.features(images).float()
        return self.network(images).log_softmax(1)


def save_patient_model(folder: Path, network: Path, model: PatientModel, facts: dict[str, Any]) -> None:
    """Write `card.json` and the weights of the aggregate; `network` is the folder of the checkpoint."""
    with atomic_dir(folder) as temporary:
        state = {key: value.contiguous().cpu() for key, value in model.aggregate.state_dict().items()}
        save_file(state, temporary / WEIGHTS)
        card = {
            **facts,
            "patient": {
                "channels": model.channels, "classes": model.classes, "weights": file_hash(temporary / WEIGHTS),
                "network": Path(os.path.relpath(network, folder)).as_posix(),
            },
            "sha256": read_json(network / "card.json")["sha256"],  # of the network
        }  # fmt: skip
        write_json(temporary / "card.json", card)


def load_patient_model(folder: Path, device: torch.device | str = "cpu") -> PatientModel:
    """The patient model of a folder, in eval mode.

    Raises:
        UserError: the data have no patient unit, the network has changed since the aggregate was fitted or has
            other classes, or the weights of the aggregate are not those that the card describes.
    """
    card = read_json(folder / "card.json")
    if reason := card.get("not_fitted"):
        raise UserError(
            str(folder), f"is no model of patients: {reason}", "Load the checkpoint, a model of images"
        )
    facts = card["patient"]
    path = folder / facts["network"]
    again = "Run `dvc repro patient`"
    if read_json(path / "card.json")["sha256"] != card["sha256"]:
        raise UserError(str(folder), f"{path} has changed since the aggregate was fitted", again)
    network = checkpoint.load(path, device)
    if network.classes != facts["classes"]:
        raise UserError(str(folder), f"was fitted for {facts['classes']}, not for {network.classes}", again)
    if not (folder / WEIGHTS).is_file() or file_hash(folder / WEIGHTS) != facts["weights"]:
        raise UserError(str(folder / WEIGHTS), "is not the file that card.json describes", "Run `dvc checkout`")
    state = load_file(folder / WEIGHTS)
    width = len(state["mean"]) if "mean" in state else 0
    aggregate = build_aggregate(card["aggregate"], width, int(card["hidden"]), len(facts["classes"]))
    aggregate.load_state_dict(state)
    return PatientModel(network, aggregate, int(facts["channels"])).to(device).eval()
