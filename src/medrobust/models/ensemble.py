"""Several classifiers as one model: attacks make one image for all members, with the gradient of all of them."""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_dir, read_json, write_json
from medrobust.models import checkpoint
from medrobust.models.combination import Combination


class EnsembleClassifier(nn.Module):
    """Combines the members' log-probabilities into log-probabilities, which attacks use as logits.

    Members of weight 0 are left out and cost nothing; all have the same classes. A list as `combination` stands
    for weights of the members' probabilities. `combiner` maps M×n×K to n×K.
    """

    folder: Path | None = None  # that it was loaded from

    def __init__(self, members: list[nn.Module], combination: Combination | list[float]) -> None:
        super().__init__()
        combination = Combination(weights=combination) if isinstance(combination, list) else combination
        self.members = nn.ModuleList([members[i] for i in combination.active(len(members))])
        self.combiner = combination.of_active().module()
        self.classes: list[str] = getattr(self.members[0], "classes", [])

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities, n×K, of images n×C×H×W in [0, 1]."""
        return self.combiner(torch.stack([member(images).log_softmax(1) for member in self.members]))


def save_ensemble(
    folder: Path, members: Mapping[str, Path], combination: Combination, facts: dict[str, Any]
) -> None:
    """Write `card.json`: `facts`, the combination, and its members in order (name -> folder of the checkpoint)."""
    active = combination.active(len(members))
    rows = {
        name: {
            "folder": Path(os.path.relpath(path, folder)).as_posix(),
            "sha256": read_json(path / "card.json")["sha256"],
            "votes": i in active,
        }
        for i, (name, path) in enumerate(members.items())
    }
    with atomic_dir(folder) as temporary:
        write_json(temporary / "card.json", {**facts, "members": rows, "rule": asdict(combination)})


def load_members(
    folder: Path, device: torch.device | str = "cpu", only: Collection[str] | None = None
) -> dict[str, nn.Module]:
    """The members that an ensemble was fitted with, by name, in eval mode.

    `only` names the members to load; None = all. The hashes of the others are checked too.

    Raises:
        UserError: a member is missing or has changed since the ensemble was fitted, or the method was not fitted.
    """
    models: dict[str, nn.Module] = {}
    for name, row in _card(folder)["members"].items():
        path = folder / row["folder"]
        if read_json(path / "card.json")["sha256"] != row["sha256"]:
            raise UserError(
                str(folder), f"{name} has changed since the weights were fitted", "Run `dvc repro ensemble`"
            )
        if only is None or name in only:
            models[name] = checkpoint.load(path, device)
    return models


def active_members(folder: Path) -> list[str]:
    """Names of the active members of an ensemble, in the order of its combination."""
    return [name for name, row in _card(folder)["members"].items() if row["votes"]]


def load_ensemble(folder: Path, device: torch.device | str = "cpu") -> EnsembleClassifier:
    """The ensemble of a folder, in eval mode; raises what `load_members` raises."""
    combination = Combination(**_card(folder)["rule"])
    members = load_members(folder, device, only=active_members(folder))
    return EnsembleClassifier(list(members.values()), combination.of_active()).to(device).eval()


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = read_json(folder / "card.json")
    if "not_fitted" in card:
        found = f"this ensemble method could not be fitted: {card['not_fitted']}"
        raise UserError(str(folder), found, "Set another ensemble.method")
    return card
