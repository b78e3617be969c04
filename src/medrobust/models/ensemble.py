"""Several classifiers that an attack meets as one model: one image, one gradient through all that vote."""

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
from medrobust.models.vote import Rule


class EnsembleClassifier(nn.Module):
    """Members' log-probabilities made one by a rule: log-probabilities again, so that attacks see honest logits.

    Attributes:
        members: those with a say; who has weight 0 is left out and costs nothing.
        vote: the module of the rule, M×n×K -> n×K.

    Args:
        members: classifiers with the same classes.
        rule: what a method of `medrobust.ensembling` fitted; a list stands for the weights of a soft vote.
    """

    def __init__(self, members: list[nn.Module], rule: Rule | list[float]) -> None:
        super().__init__()
        rule = Rule(weights=rule) if isinstance(rule, list) else rule
        self.members = nn.ModuleList([members[place] for place in rule.voters(len(members))])
        self.vote = rule.of_voters().module()

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities, n×K, of images n×C×H×W in [0, 1]."""
        found: Tensor = self.vote(torch.stack([member(images).log_softmax(1) for member in self.members]))
        return found


def save_ensemble(folder: Path, members: Mapping[str, Path], rule: Rule, facts: dict[str, Any]) -> None:
    """Write `card.json`.

    Args:
        folder: of the ensemble.
        members: name -> folder of the checkpoint, in the order of the rule.
        rule: how they vote.
        facts: what else a reader should know (method, what it was fitted on).
    """
    have_a_say = rule.voters(len(members))
    rows = {
        name: {
            "folder": Path(os.path.relpath(path, folder)).as_posix(),
            "sha256": read_json(path / "card.json")["sha256"],
            "votes": place in have_a_say,
        }
        for place, (name, path) in enumerate(members.items())
    }
    with atomic_dir(folder) as temporary:
        write_json(temporary / "card.json", {**facts, "members": rows, "rule": asdict(rule)})


def load_members(
    folder: Path, device: torch.device | str = "cpu", only: Collection[str] | None = None
) -> dict[str, nn.Module]:
    """The models that an ensemble was fitted from, by name, in eval mode.

    Args:
        folder: of the ensemble.
        device: where to.
        only: names to load, None = all; the others are checked all the same.

    Raises:
        UserError: a member is missing, or is another model than when the rule was fitted; or there is no rule.
    """
    found: dict[str, nn.Module] = {}
    for name, row in _card(folder)["members"].items():
        path = folder / row["folder"]
        if read_json(path / "card.json")["sha256"] != row["sha256"]:
            raise UserError(
                str(folder), f"{name} has changed since the weights were fitted", "Run `dvc repro ensemble`"
            )
        if only is None or name in only:
            found[name] = checkpoint.load(path, device)
    return found


def voters(folder: Path) -> list[str]:
    """Names of an ensemble's members that have a say, in the order of its rule."""
    return [name for name, row in _card(folder)["members"].items() if row["votes"]]


def load_ensemble(folder: Path, device: torch.device | str = "cpu") -> EnsembleClassifier:
    """The ensemble of a folder, in eval mode; errors as of `load_members`."""
    rule = Rule(**_card(folder)["rule"])
    members = load_members(folder, device, only=voters(folder))
    return EnsembleClassifier(list(members.values()), rule.of_voters()).to(device).eval()


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = read_json(folder / "card.json")
    if "not_fitted" in card:
        found = f"this ensemble method could not be fitted: {card['not_fitted']}"
        raise UserError(str(folder), found, "Set another ensemble.method")
    return card
