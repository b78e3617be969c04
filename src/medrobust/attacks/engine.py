"""Run a suite on a model: who is fooled at which radius, image by image.

Naturally wrong images never enter. An image that is fooled leaves at once, and counts as fooled at every larger
radius, because the smaller ball lies inside the larger one; survivors start from where they stood. Attacks run
in the suite's order, so cheap strong ones come first. The answer is the per-image worst case over the suite.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Norm, check_labels, check_logits, distance, margin
from medrobust.attacks.random import image_seeds
from medrobust.data.store import Subset
from medrobust.runtime import progress

#: Columns of the per-image records, one row an image and radius.
RECORDS = [
    "id", "patient", "label", "clean_pred", "eps", "adv_pred", "fooled", "fooled_by", "fooled_at",
    "distance", "margin",
]  # fmt: skip


def build_attack(entry: dict[str, Any], eps: float, norm: Norm) -> Attack:
    """The attack of one entry of a resolved suite at a radius."""
    kind = getattr(import_module(entry["module"]), entry["class"])
    attack: Attack = kind(eps=eps, norm=norm, **entry["hyperparameters"])
    return attack


@dataclass
class _State:
    """What is known of each image so far; `adv` is where it stands, `by` and `at` what fooled it at which eps."""

    clean_pred: np.ndarray
    pred: np.ndarray
    margin: np.ndarray
    distance: np.ndarray
    by: np.ndarray
    at: np.ndarray
    adv: dict[int, Tensor] = field(default_factory=dict)


def evaluate_suite(
    model: nn.Module, subset: Subset, suite: dict[str, Any], *, seed: int, batch_size: int = 64,
    allow_weak: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Attack every image of a subset with every attack of a resolved suite, at every radius.

    Args:
        model: images in [0, 1] to logits, on the device to use.
        subset: the images and their labels.
        suite: as `attacks.suite.resolve_suite` gives it.
        seed: each image's own seed derives from it and from the image's id.
        batch_size: images at once; results do not depend on it.
        allow_weak: attack a model that returns probabilities all the same.

    Returns:
        Table of `RECORDS`, one row an image and radius; `fooled_by` is `natural` for images that the model
        gets wrong without an attack, and `fooled_at` their radius 0.

    Raises:
        UserError: labels that the model has no logit for; NaN, infinities or probabilities from it.
    """
    seeds = image_seeds(subset.ids, seed)
    state = _clean(model, subset, batch_size, allow_weak)
    tables = []
    for eps in suite["eps"]:
        for entry in suite["attacks"]:
            left = np.flatnonzero(state.by == "")
            attack = build_attack(entry, eps, suite["norm"])
            chunks = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
            for rows in progress(chunks, f"{entry['name']} at {eps:g}", unit="batches"):
                _attack_rows(model, subset, rows, attack, entry["name"], seeds, state)
        tables.append(_table(subset, state, eps))
    return pd.concat(tables, ignore_index=True)


def _clean(model: nn.Module, subset: Subset, batch_size: int, allow_weak: bool) -> _State:
    device = next(model.parameters()).device
    logits = []
    with torch.no_grad():
        for start in range(0, len(subset), batch_size):
            logits.append(model(subset.batch(range(start, min(start + batch_size, len(subset)))).to(device)).cpu())
    scores = torch.cat(logits)
    check_logits(scores, allow_weak)
    check_labels(torch.from_numpy(subset.labels), scores.shape[1])
    pred, labels = scores.argmax(1).numpy(), torch.from_numpy(subset.labels)
    wrong = pred != subset.labels
    return _State(
        clean_pred=pred,
        pred=pred.copy(),
        margin=margin(scores, labels).numpy(),
        distance=np.zeros(len(subset)),
        by=np.where(wrong, "natural", "").astype(object),
        at=np.where(wrong, 0.0, np.nan),
    )


def _attack_rows(
    model: nn.Module,
    subset: Subset,
    rows: np.ndarray,
    attack: Attack,
    name: str,
    seeds: Tensor,
    state: _State,
) -> None:
    """Attack some surviving images and note what came of it."""
    device = next(model.parameters()).device
    images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
    warm = [state.adv.get(row) for row in rows.tolist()]
    start = None if any(place is None for place in warm) else torch.stack([p for p in warm if p is not None])
    start = None if start is None else start.to(device)
    adv = attack(model, images, labels, seeds=seeds[rows].to(device), start=start)
    with torch.no_grad():
        logits = model(adv)
    lengths = distance(adv, images, attack.norm)
    gap = margin(logits, labels)
    for position, row in enumerate(rows.tolist()):
        fooled = bool(logits[position].argmax() != labels[position])
        if fooled or float(gap[position]) >= state.margin[row]:
            state.pred[row], state.margin[row] = int(logits[position].argmax()), float(gap[position])
            state.distance[row] = float(lengths[position])
            state.adv[row] = adv[position].cpu()
        if fooled:
            state.by[row], state.at[row] = name, attack.eps
            state.adv.pop(row)


def _table(subset: Subset, state: _State, eps: float) -> pd.DataFrame:
    columns = {
        "id": subset.ids, "patient": subset.patients, "label": subset.labels, "clean_pred": state.clean_pred,
        "eps": eps, "adv_pred": state.pred, "fooled": state.by != "", "fooled_by": state.by,
        "fooled_at": state.at, "distance": state.distance, "margin": state.margin,
    }  # fmt: skip
    return pd.DataFrame({name: np.copy(columns[name]) for name in RECORDS})
