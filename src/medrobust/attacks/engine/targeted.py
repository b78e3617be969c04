"""Targeted success: how many images an attack brought to the class that it wanted, not just to any error."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from medrobust.attacks.base import TOLERANCE
from medrobust.attacks.engine.evaluate import named_attacks
from medrobust.attacks.goals import Costs, choose_targets
from medrobust.attacks.problem import GoalAttack
from medrobust.core.intervals import mean_ci
from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset

#: Images a forward pass.
BATCH = 64


def targeted_success(
    model: nn.Module, subset: Subset, suite: dict[str, Any], attempts: pd.DataFrame, report: ReportParams
) -> dict[str, Any]:
    """Share of images that some attempt within a radius brought to their target class, for each goal of a suite.

    Counted are images that the model answers rightly without an attack and whose target is another class (Carlini
    & Wagner 2017 call this the success probability). An image that another wrong answer fooled may not be asked
    again at that radius, so beside other attacks in a suite the share is a lower bound.

    Args:
        model: [0, 1] images to logits; asked only about clean images (`least_likely` hangs on its answers).
        subset: the attacked images.
        suite: as `attacks.suite.resolve_suite` gives it.
        attempts: the engine's records of this suite, one row an image and attempt.
        report: of the intervals.

    Returns:
        {} if no attack of the suite has a target; else `targeted_n`, `targeted_success` and `targeted_success_ci`:
        goal -> number of images; goal -> radius -> share (None without such images); the same -> [low, high].
    """
    found: dict[str, Any] = {"targeted_n": {}, "targeted_success": {}, "targeted_success_ci": {}}
    settings: dict[str, Any] = {"resamples": report.bootstrap, "confidence": report.confidence}
    first = attempts.drop_duplicates("id").set_index("id").loc[subset.ids]
    knows = (first["clean_pred"] == first["label"]).to_numpy()
    for goal, (target, costs) in _goals(suite).items():
        targets = _targets(model, subset, target, costs)
        asked = knows & (targets != subset.labels)
        nearest = _nearest(attempts, pd.Series(targets, subset.ids)).reindex(subset.ids).to_numpy()[asked]
        labels, patients = subset.labels[asked], subset.patients[asked]
        shares: dict[str, float | None] = {}
        intervals: dict[str, list[float] | None] = {}
        for eps in suite["eps"]:
            reached = nearest <= eps * (1 + TOLERANCE) + 1e-7
            shares[f"{eps:g}"] = float(reached.mean()) if len(reached) else None
            intervals[f"{eps:g}"] = (
                mean_ci(reached.astype(float), labels, patients, **settings) if len(reached) else None
            )
        found["targeted_n"][goal] = int(asked.sum())
        found["targeted_success"][goal], found["targeted_success_ci"][goal] = shares, intervals
    return found if found["targeted_n"] else {}


def _goals(suite: dict[str, Any]) -> dict[str, tuple[int | str, Costs]]:
    """The targets of a suite and their costs, by name."""
    goals: dict[tuple[str, str], tuple[int | str, Costs]] = {}
    for _, attack in named_attacks(suite):
        if isinstance(attack, GoalAttack) and attack.target is not None:
            goals[str(attack.target), str(attack.costs)] = (attack.target, attack.costs)
    names = [target for target, _ in goals]
    return {
        target if names.count(target) == 1 else f"{target} {costs}": goal
        for (target, costs), goal in goals.items()
    }


def _targets(model: nn.Module, subset: Subset, target: int | str, costs: Costs) -> np.ndarray:
    """The class that each image shall end in, int64 n."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(subset), BATCH):
        rows = range(start, min(start + BATCH, len(subset)))
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        parts.append(choose_targets(model, images, labels, target, costs))
    found: np.ndarray = torch.cat(parts).cpu().numpy()
    return found


def _nearest(attempts: pd.DataFrame, targets: pd.Series) -> pd.Series:
    """Image -> distance of the nearest attempt that ended in its target class; images without one are left out."""
    tried = attempts[~attempts["attack"].isin(["natural", "stored"])]
    hit = tried[tried["pred"].to_numpy() == targets.loc[tried["id"]].to_numpy()]
    found: pd.Series = hit.groupby("id")["distance"].min()
    return found
