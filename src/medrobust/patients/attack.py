"""Attack patients end to end: all images of a patient, or only some, to change the patient's class."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medrobust.attacks.base import Attack, frozen, input_gradient, margin
from medrobust.attacks.engine.evaluate import attack_suite, named_attacks
from medrobust.attacks.engine.resume import resume_folder
from medrobust.attacks.engine.run import AttackOutputs, write_results
from medrobust.attacks.methods.apgd import APGD
from medrobust.attacks.methods.iterative import CWPGD, IteratedGradient
from medrobust.attacks.state import IterativeAttack
from medrobust.core.metrics import auroc
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.ranking import auroc_ci
from medrobust.core.runtime import process_number
from medrobust.core.seeds import image_seeds
from medrobust.models.patient import PatientModel
from medrobust.models.predict import batches
from medrobust.patients.subsets import PatientSubset

#: Images per pass, over all patients of a batch.
IMAGES = 64
#: Gradient steps of the attacker who may change only some images.
STEPS = 20


def attack_patients(
    model: PatientModel, groups: list[PatientSubset], suite: dict[str, Any], outs: AttackOutputs, *,
    bit_depth: int, seed: int, params: PatientParams, report: ReportParams,
) -> None:  # fmt: skip
    """Run a suite on patients; the ball bounds each pixel of every image of a patient.

    Besides the results of an attack on images, the record has `robust_auroc` for two classes (see
    `harmful_scores`), and `images_attacked`: the share of patients who keep the right class against an attacker
    who may change k of their images at the radius `params.eps` (see `few_images`).
    """
    tables = []
    for group in groups:
        resume = resume_folder(model, group, suite, seed=seed, bit_depth=bit_depth)
        size = max(1, IMAGES // group.images_per_row)
        tables.append(
            attack_suite(model, group, suite, seed=seed, bit_depth=bit_depth, batch_size=size, resume=resume)
        )
    attempts = pd.concat(tables, ignore_index=True)
    with frozen(model):
        more = few_images(model, groups, params, seed) | _aurocs(model, groups, suite, seed, report)
    if process_number() == 0:
        write_results(attempts, model.classes, suite, outs, report, more)
        for group in groups:
            resume_folder(model, group, suite, seed=seed, bit_depth=bit_depth).clear()


def few_images(
    model: PatientModel, groups: list[PatientSubset], params: PatientParams, seed: int
) -> dict[str, dict[str, float]]:
    """`images_attacked`: number k of changed images -> share of patients with the right class.

    The images of a patient are ranked once, by the L1 norm of the margin's gradient: the gain that a small step in
    the Linf ball promises. The attack is PGD on the margin of the patient. A patient whose class changes with k
    images counts as changed for every larger k, and one with at most k images is attacked in all of them.
    """
    standing: list[np.ndarray] = []
    for group in groups:
        size = max(1, IMAGES // group.images_per_row)
        parts = [_standing_patients(model, group, rows, params, seed) for rows in batches(len(group), size)]
        standing.append(np.concatenate(parts))
    shares = np.concatenate(standing).mean(0)
    return {"images_attacked": {str(k): float(s) for k, s in zip(params.attacked_images, shares, strict=True)}}


def _standing_patients(
    model: PatientModel, group: PatientSubset, rows: np.ndarray, params: PatientParams, seed: int
) -> np.ndarray:
    """Which patients keep the right class, bool n×(number of k)."""
    images, labels, seeds = _fetch(model, group, rows, seed)
    logits, _, gradient = input_gradient(model, images, lambda logits, _: margin(logits, labels))
    per_image = gradient.reshape(len(rows), group.images_per_row, -1).abs().sum(2)
    rank = per_image.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    right, current = logits.argmax(1) == labels, images
    columns = []
    for k in params.attacked_images:
        chosen = (rank < k).repeat_interleave(model.channels, dim=1)[:, :, None, None].expand(images.shape)
        left = torch.nonzero(right).squeeze(1)
        if len(left):
            attack = CWPGD(eps=params.eps, steps=STEPS, mask=chosen[left])
            found = attack(model, images[left], labels[left], seeds=seeds[left], start=current[left])
            current = current.index_copy(0, left, found)
            with torch.no_grad():
                right = right.index_copy(0, left, model(found).argmax(1) == labels[left])
        columns.append(right.cpu().numpy())
    return np.stack(columns, axis=1)


def _aurocs(
    model: PatientModel, groups: list[PatientSubset], suite: dict[str, Any], seed: int, report: ReportParams
) -> dict[str, Any]:
    """`robust_auroc` and its interval by radius; {} for more than two classes."""
    if len(model.classes) != 2:
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
    attacks = [attack for _, attack in named_attacks(suite) if _uses_gradients(attack)]
    columns = []
    for rows in batches(len(group), max(1, IMAGES // group.images_per_row)):
        images, labels, seeds = _fetch(model, group, rows, seed)
        with torch.no_grad():
            worst = margin(model(images), labels)
        by_radius = []
        for eps in suite["eps"]:
            for attack in attacks:
                found = replace(attack, eps=eps).to_the_end()(model, images, labels, seeds=seeds)
                with torch.no_grad():
                    worst = torch.maximum(worst, margin(model(found), labels))
            by_radius.append(torch.where(labels == 1, -worst, worst).cpu().numpy())
        columns.append(np.stack(by_radius))
    return np.concatenate(columns, axis=1)


def _uses_gradients(attack: Attack) -> bool:
    if isinstance(attack, IterativeAttack):
        return attack.uses_gradient
    return isinstance(attack, IteratedGradient | APGD)


def _fetch(
    model: PatientModel, group: PatientSubset, rows: np.ndarray, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    device = next(model.parameters()).device
    seeds = image_seeds(group.ids[rows], seed).to(device)
    return group.batch(rows).to(device), group.targets(rows).to(device), seeds
