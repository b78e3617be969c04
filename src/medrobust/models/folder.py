"""Model folders: a checkpoint, an ensemble of checkpoints or a patient model, as `card.json` tells."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from medrobust.core.records import file_hash, read_json
from medrobust.models import checkpoint, ensemble, patient


def load(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The model of a folder, in eval mode on `device`: images n×C×H×W in [0, 1] to logits n×K.

    A patient model takes all images of a patient at once (see `patient.PatientModel`).

    Raises:
        UserError: as documented for `checkpoint.load`, `ensemble.load_ensemble` and `patient.load_patient_model`.
    """
    folder = Path(folder)
    if is_patient_model(folder):
        return patient.load_patient_model(folder, device)
    return ensemble.load_ensemble(folder, device) if _is_ensemble(folder) else checkpoint.load(folder, device)


def members(folder: Path, device: torch.device | str = "cpu") -> dict[str, nn.Module]:
    """All members of an ensemble by name, including those of weight 0; {} for a checkpoint."""
    return ensemble.load_members(folder, device) if _is_ensemble(folder) else {}


def not_fitted(folder: Path) -> str | None:
    """Why an ensemble method or a patient model could not be fitted; None if the folder holds a model."""
    return _card(folder).get("not_fitted")


def is_adversarial(folder: Path) -> bool:
    """Whether the model, or an ensemble's members, were trained on attacked images."""
    return bool(_card(folder).get("regime") == "adv")


def adversarial_trainings(folder: Path) -> list[dict[str, Any]]:
    """The `adv` block with which the model, or each member of an ensemble, was trained; [] for clean models."""
    card = _card(folder)
    if "members" in card:
        return [
            block for row in card["members"].values() for block in adversarial_trainings(folder / row["folder"])
        ]
    block = card.get("params", {}).get("adv")
    return [block] if block else []


def is_patient_model(folder: Path) -> bool:
    """Whether the model decides about patients, from all images of each."""
    return "patient" in _card(folder)


def weights_hash(folder: Path) -> str:
    """sha256 of the weights of a checkpoint or of a patient model's network, or of an ensemble's card.

    The card of an ensemble holds the hashes of all members.
    """
    card = _card(folder)
    return str(card["sha256"]) if "sha256" in card else file_hash(folder / "card.json")


def _is_ensemble(folder: Path) -> bool:
    return not {"members", "not_fitted"}.isdisjoint(_card(folder))


def _card(folder: Path) -> dict[str, Any]:
    """The card; {} if it is damaged, which `checkpoint.load` refuses."""
    card = read_json(folder / "card.json")
    return card if isinstance(card, dict) else {}
