"""Targeted success: for how many images an attack reached the target class, not just any wrong class."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from medrobust.attacks.engine.evaluate import named_attacks
from medrobust.attacks.problem import TargetableAttack
from medrobust.attacks.targets import Costs, choose_targets
from medrobust.attacks.tolerance import TOLERANCE
from medrobust.core.params.report import ReportParams
from medrobust.core.rates import share_ci
from medrobust.data.store import Subset

BATCH = 64


def targeted_success(
    model: nn.Module, subset: Subset, suite: dict[str, Any], attempts: pd.DataFrame, report: ReportParams
) -> dict[str, Any]:
    """Share of images that some attempt within a radius turned into their target class, per target.

    The share is taken over images that the model classifies correctly without an attack and whose target is
    another class (the success probability of Carlini & Wagner 2017). In a suite with other attacks it is a lower
    bound (docs/attacks.md). The model is evaluated on clean images only (for `least_likely`).

    Returns:
        {} if no attack of the suite has a target; else `targeted_n`, `targeted_success` and `targeted_success_ci`:
        target -> number of images; target -> radius -> share (None without such images); the same -> [low, high].
    """
    result: dict[str, Any] = {"targeted_n": {}, "targeted_success": {}, "targeted_success_ci": {}}
    first = attempts.drop_duplicates("id").set_index("id").loc[subset.ids]
    correct = (first["clean_pred"] == first["label"]).to_numpy()
    for name, (target, costs) in _targets_of(suite).items():
        targets = _choose_targets(model, subset, target, costs)
        counted = correct & (targets != subset.labels)
        nearest = _nearest(attempts, pd.Series(targets, subset.ids)).reindex(subset.ids).to_numpy()[counted]
        labels, patients = subset.labels[counted], subset.patients[counted]
        shares: dict[str, float | None] = {}
        intervals: dict[str, list[float] | None] = {}
        for eps in suite["eps"]:
            reached = nearest <= eps * (1 + TOLERANCE) + 1e-7
            shares[f"{eps:g}"] = float(reached.mean()) if len(reached) else None
            intervals[f"{eps:g}"] = (
                share_ci(reached, labels, patients, report.confidence) if len(reached) else None
            )
        result["targeted_n"][name] = int(counted.sum())
        result["targeted_success"][name], result["targeted_success_ci"][name] = shares, intervals
    return result if result["targeted_n"] else {}


def _targets_of(suite: dict[str, Any]) -> dict[str, tuple[int | str, Costs]]:
    """The targets of a suite's attacks with their costs, by name."""
    found: dict[tuple[str, str], tuple[int | str, Costs]] = {}
    for _, attack in named_attacks(suite):
        if isinstance(attack, TargetableAttack) and attack.target is not None:
            found[str(attack.target), str(attack.costs)] = (attack.target, attack.costs)
    names = [target for target, _ in found]
    return {
        target if names.count(target) == 1 else f"{target} {costs}": pair
        for (target, costs), pair in found.items()
    }


def _choose_targets(model: nn.Module, subset: Subset, target: int | str, costs: Costs) -> np.ndarray:
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(subset), BATCH):
        rows = range(start, min(start + BATCH, len(subset)))
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        parts.append(choose_targets(model, images, labels, target, costs))
    return torch.cat(parts).cpu().numpy()


def _nearest(attempts: pd.DataFrame, targets: pd.Series) -> pd.Series:
    """Image id -> distance of the nearest attempt that reached its target class; others are left out."""
    tried = attempts[~attempts["attack"].isin(["natural", "stored"])]
    hit = tried[tried["pred"].to_numpy() == targets.loc[tried["id"]].to_numpy()]
    return hit.groupby("id")["distance"].min()
