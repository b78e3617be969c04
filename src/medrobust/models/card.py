"""What the card of a model folder says, without loading the model. Light: no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from medrobust.core.records import read_json


def not_fitted(folder: Path) -> str | None:
    """Why an ensemble method or a patient model could not be fitted; None if the folder holds a model."""
    return read_card(folder).get("not_fitted")


def is_adversarial(folder: Path) -> bool:
    """Whether the model, or an ensemble's members, were trained on attacked images."""
    return bool(read_card(folder).get("regime") == "adv")


def is_patient_model(folder: Path) -> bool:
    """Whether the model decides about patients, from all images of each."""
    return "patient" in read_card(folder)


def weights_hash(folder: Path) -> str:
    """sha256 of the weights of a checkpoint or of a patient model's network, or of an ensemble's card.

    The card of an ensemble holds the hashes of all members. Where their folders are does not count: the hash is
    the same in a published folder, which has its members inside.
    """
    card = read_card(folder)
    if "sha256" in card:
        return str(card["sha256"])
    rows = {name: {**row, "folder": None} for name, row in card.get("members", {}).items()}
    return hashlib.sha256(json.dumps({**card, "members": rows}, sort_keys=True).encode()).hexdigest()


def is_ensemble(folder: Path) -> bool:
    """Whether the folder is that of an ensemble method, fitted or not."""
    return not {"members", "not_fitted"}.isdisjoint(read_card(folder))


def read_card(folder: Path) -> dict[str, Any]:
    """The card; {} if it is damaged, which `checkpoint.load` refuses."""
    card = read_json(folder / "card.json")
    return card if isinstance(card, dict) else {}
