"""A weighted vote of classifiers that an attack meets as one model: one image, one gradient through all."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.data.store import Subset
from medrobust.errors import UserError
from medrobust.evaluation import predict_all
from medrobust.models import checkpoint
from medrobust.params.training import AdvParams
from medrobust.records import atomic_dir, read_json, write_json
from medrobust.training.objectives.inner import training_attack


class EnsembleClassifier(nn.Module):
    """log(sum of weight · softmax of each member): log-probabilities, so that attacks see honest logits.

    Args:
        members: classifiers with the same classes.
        weights: one a member, non-negative, sum 1.
    """

    weights: Tensor

    def __init__(self, members: list[nn.Module], weights: list[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities, n×K, of images n×C×H×W in [0, 1]."""
        votes = torch.stack([member(images).log_softmax(1) for member in self.members])
        weights = self.weights.clamp_min(1e-12).log().to(votes.dtype)
        return torch.logsumexp(votes + weights[:, None, None], dim=0)


def fit_ensemble(
    members: Mapping[str, nn.Module], val: Subset, adv: AdvParams, robust_share: float, seed: int
) -> tuple[EnsembleClassifier, dict[str, float]]:
    """Fit convex weights on validation images, clean and attacked.

    The attacked images are made on the equal-weight vote, one image for all members.

    Args:
        members: name -> classifier.
        val: validation images.
        adv: radius and steps of the attack.
        robust_share: weight of the attacked images' log-loss.
        seed: of the attack's random starts.

    Returns:
        The ensemble and the weights by name.
    """
    judges = list(members.values())
    equal = EnsembleClassifier(judges, [1 / len(judges)] * len(judges)).eval()
    equal.to(next(judges[0].parameters()).device)
    clean = predict_all(judges, val, None, equal, seed)
    robust = predict_all(judges, val, training_attack(adv), equal, seed)
    weights = convex_weights(clean, robust, val.labels, robust_share)
    ensemble = EnsembleClassifier(judges, weights.tolist()).eval().to(equal.weights.device)
    return ensemble, {name: round(float(weight), 4) for name, weight in zip(members, weights, strict=True)}


def convex_weights(clean: np.ndarray, robust: np.ndarray, labels: np.ndarray, robust_share: float) -> np.ndarray:
    """Weights on the simplex, M, that minimise (1 - share)·NLL(clean) + share·NLL(robust).

    Args:
        clean, robust: log-probabilities, M×n×K, of each member.
        labels: int, n.
        robust_share: between 0 and 1.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(labels))
    chances = [np.exp(part[:, rows, labels]) for part in (clean, robust)]

    def loss(free: np.ndarray) -> float:
        weights = np.exp(free - free.max())
        weights /= weights.sum()
        parts = [-np.log(np.maximum(weights @ chance, 1e-12)).mean() for chance in chances]
        return float((1 - robust_share) * parts[0] + robust_share * parts[1])

    free = minimize(loss, np.zeros(len(clean)), method="L-BFGS-B", bounds=[(-8, 8)] * len(clean)).x
    weights: np.ndarray = np.exp(free - free.max())
    weights /= weights.sum()
    return weights


def save_ensemble(folder: Path, weights: dict[str, float], members: dict[str, Path]) -> None:
    """Write `card.json`: the members' folders (relative to `folder`), their hashes and weights."""
    rows = {
        name: {
            "folder": Path(os.path.relpath(path, folder)).as_posix(),
            "sha256": read_json(path / "card.json")["sha256"],
            "weight": weights[name],
        }
        for name, path in members.items()
    }
    with atomic_dir(folder) as temporary:
        write_json(temporary / "card.json", {"members": rows})


def load_ensemble(folder: Path, device: torch.device | str = "cpu") -> EnsembleClassifier:
    """The ensemble of a folder, in eval mode.

    Raises:
        UserError: a member is missing, or is another model than when the weights were fitted.
    """
    rows = read_json(folder / "card.json")["members"]
    members: list[nn.Module] = []
    for name, row in rows.items():
        path = folder / row["folder"]
        if read_json(path / "card.json")["sha256"] != row["sha256"]:
            raise UserError(
                str(folder), f"{name} has changed since the weights were fitted", "Run `dvc repro ensemble`"
            )
        members.append(checkpoint.load(path, device))
    return EnsembleClassifier(members, [row["weight"] for row in rows.values()]).to(device).eval()
