"""Model folders: a checkpoint, or an ensemble of checkpoints. The `card.json` of a folder says which it is."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from medrobust.core.records import file_hash, read_json
from medrobust.models import checkpoint, ensemble


def load(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The model of a folder, in eval mode on `device`: images n×C×H×W in [0, 1] to logits n×K.

    Raises:
        UserError: as of `checkpoint.load` and `ensemble.load_ensemble`.
    """
    folder = Path(folder)
    return ensemble.load_ensemble(folder, device) if _is_ensemble(folder) else checkpoint.load(folder, device)


def members(folder: Path, device: torch.device | str = "cpu") -> dict[str, nn.Module]:
    """All members of an ensemble by name, those of weight 0 included; {} of a checkpoint."""
    return ensemble.load_members(folder, device) if _is_ensemble(folder) else {}


def not_fitted(folder: Path) -> str | None:
    """Why an ensemble method could not be fitted; None where the folder holds a model."""
    reason: str | None = _card(folder).get("not_fitted")
    return reason


def is_adversarial(folder: Path) -> bool:
    """Whether the model, or an ensemble's members, were trained on attacked images."""
    return bool(_card(folder).get("regime") == "adv")


def weights_hash(folder: Path) -> str:
    """sha256 of a checkpoint's weights; of an ensemble, of its card, which holds the hashes of all members."""
    return file_hash(folder / "card.json") if _is_ensemble(folder) else str(_card(folder)["sha256"])


def _is_ensemble(folder: Path) -> bool:
    return "members" in _card(folder) or "not_fitted" in _card(folder)


def _card(folder: Path) -> dict[str, Any]:
    """The card; {} of a damaged one, which `checkpoint.load` refuses."""
    card = read_json(folder / "card.json")
    return card if isinstance(card, dict) else {}
