"""Who falls for whose images: made on each model and judged by all, and what that does to their calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack, margin
from medrobust.attacks.engine.evaluate import build_attack
from medrobust.core import intervals, metrics
from medrobust.core.params.report import ReportParams
from medrobust.core.params.transfer import TransferParams
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models.ensemble import EnsembleClassifier
from medrobust.models.predict import batches

BATCH = 64
#: Columns of the matrix; `source` is a model's name, or one of the two below.
MATRIX = [
    "source",
    "judge",
    "accuracy",
    "low",
    "high",
    "log_loss",
    "log_loss_low",
    "log_loss_high",
    "brier",
    "ece",
]
#: No attack at all; and each member of the vote with an image of its own.
CLEAN, SEPARATE = "no attack", "per member"


@dataclass(frozen=True)
class Answers:
    """What J judges say; log-probabilities, float64.

    Attributes:
        clean: J×n×K, of the images as they are.
        attacked: S×J×n×K, of the images made on each source; sources are the judges.
    """

    clean: np.ndarray
    attacked: np.ndarray


def run_to_the_end(suite: dict[str, Any], eps: float, train: Subset | None = None) -> list[Attack]:
    """A suite's attacks at one radius, none of which stops where its model first errs.

    From the boundary of the model that it was made on little transfers, and its confidence there says little.

    Args:
        suite: as `attacks.suite.resolve_suite` gives it.
        eps: radius in the suite's norm.
        train: images for attacks that are fitted.
    """
    attacks = [build_attack(entry, eps, suite["norm"]).to_the_end() for entry in suite["attacks"]]
    return attacks if train is None else [attack.with_training(train) for attack in attacks]


def strongest(
    model: nn.Module, attacks: Sequence[Attack], images: Tensor, labels: Tensor, seeds: Tensor
) -> Tensor:
    """Of each image the version, n×C×H×W, with the largest margin on `model` among what the attacks find."""
    best, top = images.clone(), torch.full((len(images),), -torch.inf, device=images.device)
    for attack in attacks:
        found = attack(model, images, labels, seeds=seeds)
        with torch.no_grad():
            gaps = margin(model(found), labels)
        better = gaps > top
        best[better], top[better] = found[better], gaps[better]
    return best


def cross_examine(models: Sequence[nn.Module], subset: Subset, attacks: Sequence[Attack], seed: int) -> Answers:
    """Make each image on every model and show it to all.

    Args:
        models: J models in eval mode, sources and judges.
        subset: the images.
        attacks: as `run_to_the_end` gives them.
        seed: of their random starts.
    """
    device = next(models[0].parameters()).device
    clean, attacked = [], []
    for rows in batches(len(subset), BATCH):
        images, labels = subset.batch(rows).to(device), subset.targets(rows).to(device)
        seeds = image_seeds(subset.ids[rows], seed).to(device)
        fitting = [attack.for_images(subset, rows.tolist()) for attack in attacks]
        clean.append(_said(models, images))
        attacked.append(
            torch.stack([_said(models, strongest(model, fitting, images, labels, seeds)) for model in models])
        )
    return Answers(torch.cat(clean, dim=1).numpy(), torch.cat(attacked, dim=2).numpy())


def _said(models: Sequence[nn.Module], images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([model(images).double().log_softmax(1).cpu() for model in models])


def separate_images(ensemble: EnsembleClassifier, own: np.ndarray) -> np.ndarray:
    """The vote, n×K, when every member gets an image that was made on it alone.

    No single image does that to the ensemble: the figure is no bound of its robustness, neither above nor below.

    Args:
        ensemble: the vote.
        own: log-probabilities, V×n×K, of each voter on the images that were made on it.
    """
    with torch.no_grad():
        found: np.ndarray = ensemble.vote.cpu().double()(torch.from_numpy(own)).numpy()
    return found


def matrix_table(
    names: Sequence[str], answers: Answers, separate: tuple[str, np.ndarray], subset: Subset, report: ReportParams
) -> pd.DataFrame:  # fmt: skip
    """Table of `MATRIX`: every judge on clean images, then on those of every source.

    Args:
        names: of the judges.
        answers: what they say.
        separate: the ensemble's name and what `separate_images` gives.
        subset: the images.
        report: of params.yaml.
    """
    rows = [
        _measured(CLEAN, judge, said, subset, report) for judge, said in zip(names, answers.clean, strict=True)
    ]
    for source, parts in zip(names, answers.attacked, strict=True):
        rows += [_measured(source, judge, said, subset, report) for judge, said in zip(names, parts, strict=True)]
    rows.append(_measured(SEPARATE, *separate, subset, report))
    return pd.DataFrame(rows, columns=MATRIX)


def _measured(source: str, judge: str, said: np.ndarray, subset: Subset, report: ReportParams) -> dict[str, Any]:
    labels, preds, classes = subset.labels, said.argmax(1), said.shape[1]
    settings: dict[str, Any] = {"resamples": report.bootstrap, "confidence": report.confidence}
    losses = -said[np.arange(len(labels)), labels]
    low, high = intervals.bootstrap_ci(labels, preds, subset.patients, classes, metrics.accuracy, **settings)
    loss_low, loss_high = intervals.mean_ci(losses, labels, subset.patients, **settings)
    return {
        "source": source, "judge": judge, "accuracy": float((preds == labels).mean()), "low": low, "high": high,
        "log_loss": float(losses.mean()), "log_loss_low": loss_low, "log_loss_high": loss_high,
        "brier": metrics.brier(labels, said), "ece": metrics.ece(labels, said),
    }  # fmt: skip


def transfer(
    models: Mapping[str, nn.Module], ensemble: tuple[str, EnsembleClassifier], voters: Sequence[str],
    subset: Subset, suite: dict[str, Any], *, params: TransferParams, report: ReportParams, seed: int,
    train: Subset | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:  # fmt: skip
    """Everything that the stage writes: the matrix and its summary.

    Args:
        models: name -> classifier in eval mode.
        ensemble: its name, and the vote.
        voters: names of the models that vote, in the vote's order.
        subset: images to choose from.
        suite: as `attacks.suite.resolve_suite` gives it.
        params: radius, and how many images, evenly spaced.
        report, seed: of params.yaml.
        train: images for attacks that are fitted.
    """
    name, vote = ensemble
    names, subset = [*models, name], subset.evenly_spaced(params.images)
    attacks = run_to_the_end(suite, params.eps, train)
    answers = cross_examine([*models.values(), vote], subset, attacks, seed)
    own = np.stack([answers.attacked[place, place] for place in map(names.index, voters)])
    table = matrix_table(names, answers, (name, separate_images(vote, own)), subset, report)
    facts = {"suite": suite["name"], "norm": suite["norm"], "eps": params.eps, "n": len(subset)}
    facts["patients"] = len(np.unique(subset.patients))
    return table, {**facts, "models": summary(table, names, name)}


def nothing() -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `transfer` gives where no images are asked for."""
    return pd.DataFrame(columns=MATRIX), {"n": 0}


def summary(table: pd.DataFrame, names: Sequence[str], ensemble: str) -> dict[str, Any]:
    """For each judge its accuracy on its own images and on those of the model that hurts it most, with intervals.

    Args:
        table: as `matrix_table` gives it.
        names: of the judges.
        ensemble: which of them is the vote; its figure for separate images stands under `per_member`.
    """
    cells = {(row["source"], row["judge"]): row for row in table.to_dict("records")}
    found: dict[str, Any] = {}
    for judge in names:
        entry = _with_interval("own", cells[judge, judge])
        if others := [name for name in names if name != judge]:
            worst = min(others, key=lambda source: float(cells[source, judge]["accuracy"]))
            entry |= {"worst_source": worst, **_with_interval("worst", cells[worst, judge])}
        if judge == ensemble:
            entry |= _with_interval("per_member", cells[SEPARATE, judge])
        found[judge] = entry
    return found


def dvc_metrics(facts: Mapping[str, Any], ensemble: str) -> dict[str, float]:
    """What DVC shows of `transfer`'s facts: the vote's accuracy on its own images or those that hurt it more."""
    row = facts.get("models", {}).get(ensemble)
    if row is None:
        return {}
    worst = min((name for name in ("own", "worst") if name in row), key=lambda name: float(row[name]))
    return {f"transfer@{facts['eps']:g}": intervals.round_to_interval(row[worst], row[f"{worst}_ci"])}


def _with_interval(name: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row["accuracy"], f"{name}_ci": [row["low"], row["high"]]}
