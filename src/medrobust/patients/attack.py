"""Attack patients end to end: all images of a patient at once, to change the patient's class."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from medrobust.attacks.base import Attack, frozen, margin
from medrobust.attacks.engine.all_steps import attacks_with_all_steps
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.resume import resume_folder
from medrobust.attacks.engine.run import AttackOutputs, write_not_fitted, write_results
from medrobust.core.metrics import auroc
from medrobust.core.params.report import ReportParams
from medrobust.core.ranking import auroc_ci
from medrobust.core.runtime import process_number
from medrobust.models.patient import PatientModel
from medrobust.models.predict import batches
from medrobust.patients.subsets import PatientSubset

#: Attacks that are fitted on single images, or made on a model of single images.
PER_IMAGE = ("universal", "transfer")


def attack_patients(
    model: PatientModel, groups: list[PatientSubset], suite: dict[str, Any], outs: AttackOutputs, *,
    bit_depth: int, seed: int, report: ReportParams, made_on: dict[str, str],
) -> None:  # fmt: skip
    """Run a suite on patients; the ball bounds each pixel of every image of a patient.

    Besides the results of an attack on images, the record has `robust_auroc` for two classes, if the suite has
    gradient attacks (see `harmful_scores`). Of a suite with an attack on single images it has the reason only.
    """
    if reason := single_image_attack(suite):
        write_not_fitted(outs, reason, made_on)
        return
    folders = [resume_folder(model, group, suite, seed=seed, bit_depth=bit_depth) for group in groups]
    tables = [
        attack_suite(
            model, group, suite, seed=seed, bit_depth=bit_depth, batch_size=group.rows_per_pass, resume=folder
        )
        for group, folder in zip(groups, folders, strict=True)
    ]
    if process_number() == 0:
        with frozen(model):
            more = _aurocs(model, groups, suite, seed, report)
        write_results(pd.concat(tables, ignore_index=True), model.classes, suite, outs, report, made_on, more)
        for folder in folders:
            folder.clear()


def single_image_attack(suite: dict[str, Any]) -> str | None:
    """Which attack of a suite cannot act on all images of a patient together, as a clause; None if all can."""
    for entry in suite["attacks"]:
        region = entry.get("hyperparameters", {}).get("mask")
        if region is not None or entry["name"] in PER_IMAGE:
            return f"{entry['name']}{f' with mask: {region}' if region else ''} acts on single images"
    return None


def _aurocs(
    model: PatientModel, groups: list[PatientSubset], suite: dict[str, Any], seed: int, report: ReportParams
) -> dict[str, Any]:
    """`robust_auroc` and its interval by radius; {} for more than two classes or without gradient attacks."""
    if len(model.classes) != 2 or not _gradient_attacks(suite, suite["eps"][-1]):
        return {}
    labels = np.concatenate([group.labels for group in groups])
    patients = np.concatenate([group.ids for group in groups])
    scores = [harmful_scores(model, group, suite, seed) for group in groups]
    result: dict[str, Any] = {"robust_auroc": {}, "robust_auroc_ci": {}}
    for number, eps in enumerate(suite["eps"]):
        column = np.concatenate([part[number] for part in scores])
        both = np.stack([-column, column], axis=1)
        result["robust_auroc"][f"{eps:g}"] = auroc(labels, both)
        result["robust_auroc_ci"][f"{eps:g}"] = auroc_ci(
            labels, both, patients, resamples=report.bootstrap, confidence=report.confidence
        )
    return result


def harmful_scores(model: PatientModel, group: PatientSubset, suite: dict[str, Any], seed: int) -> np.ndarray:
    """The most harmful score of each patient at each radius of a suite, float (number of radii)×n; two classes.

    The score is the logit of class 1 minus that of class 0. The most harmful one has the largest margin of the
    wrong class among the clean images and the results of all gradient attacks of the suite at this radius or a
    smaller one. Each attack takes all its steps, also on patients who are classified wrongly without an attack.
    """
    device, columns = next(model.parameters()).device, []
    attacks = [_gradient_attacks(suite, eps) for eps in suite["eps"]]
    for rows in batches(len(group), group.rows_per_pass):
        images, labels, seeds = group.fetch(rows, seed, device)
        with torch.no_grad():
            worst = margin(model(images), labels)
        by_radius = []
        for of_radius in attacks:
            for attack in of_radius:
                found = attack(model, images, labels, seeds=seeds)
                with torch.no_grad():
                    worst = torch.maximum(worst, margin(model(found), labels))
            by_radius.append(torch.where(labels == 1, -worst, worst).cpu().numpy())
        columns.append(np.stack(by_radius))
    return np.concatenate(columns, axis=1)


def _gradient_attacks(suite: dict[str, Any], eps: float) -> list[Attack]:
    """The attacks of a suite that follow gradients, also those inside another one, with all their steps."""
    return [part for attack in attacks_with_all_steps(suite, eps) for part in attack.gradient_attacks()]
