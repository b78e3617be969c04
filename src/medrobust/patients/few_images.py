"""The attacker who may change only some images of each patient."""

from typing import Any

import numpy as np
import torch

from medrobust.attacks.base import input_gradient, margin
from medrobust.attacks.methods.iterative import CWPGD
from medrobust.core.params.patient import PatientParams
from medrobust.core.params.report import ReportParams
from medrobust.core.rates import share_ci
from medrobust.models.patient import PatientModel
from medrobust.models.predict import batches
from medrobust.patients.subsets import PatientSubset

#: Gradient steps per number of images.
STEPS = 10


def few_images(
    model: PatientModel, groups: list[PatientSubset], params: PatientParams, report: ReportParams, seed: int
) -> dict[str, Any]:
    """`images_attacked` (number k of changed images -> share of patients with the right class), its `_ci` and eps.

    The images of a patient are ranked once, by the L1 norm of the margin's gradient: the gain that a small step in
    the Linf ball promises. The attack is PGD on the margin of the patient. A patient whose class changes with k
    images counts as changed for every larger k, and one with at most k images is attacked in all of them.
    """
    if not params.attacked_images:
        return {}
    standing: list[np.ndarray] = []
    for group in groups:
        rounds = batches(len(group), group.rows_per_pass)
        standing += [_standing_patients(model, group, rows, params, seed) for rows in rounds]
    labels, patients = (np.concatenate([getattr(group, name) for group in groups]) for name in ("labels", "ids"))
    result: dict[str, Any] = {
        "images_attacked_eps": params.eps, "images_attacked": {}, "images_attacked_ci": {},
    }  # fmt: skip
    for k, kept in zip(params.attacked_images, np.concatenate(standing).T, strict=True):
        result["images_attacked"][str(k)] = float(kept.mean())
        result["images_attacked_ci"][str(k)] = share_ci(kept, labels, patients, report.confidence)
    return result


def _standing_patients(
    model: PatientModel, group: PatientSubset, rows: np.ndarray, params: PatientParams, seed: int
) -> np.ndarray:
    """Which patients keep the right class, bool n×(number of k)."""
    images, labels, seeds = group.fetch(rows, seed, next(model.parameters()).device)
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
