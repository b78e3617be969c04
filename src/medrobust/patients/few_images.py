"""The attacker who may change only some images of each patient."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    stacks = images.unflatten(1, (group.images_per_row, -1))  # n×S×C×H×W
    promise = gradient.unflatten(1, (group.images_per_row, -1)).abs().sum((2, 3, 4))
    ranked = promise.argsort(dim=1, descending=True, stable=True)
    with torch.no_grad():
        outputs = model.outputs(stacks.flatten(0, 1)).unflatten(0, (len(rows), -1))
    right = logits.argmax(1) == labels
    columns = []
    for k in params.attacked_images:
        left = torch.nonzero(right).squeeze(1)
        if len(left):
            chosen = ranked[left, :k]
            some = _SomeImages(model, outputs[left], chosen)
            start = stacks[left].take_along_dim(chosen[:, :, None, None, None], 1).flatten(1, 2)
            attack = CWPGD(eps=params.eps, steps=STEPS, stop_when_fooled=False)  # each row has its own model
            found = attack(some, start, labels[left], seeds=seeds[left])
            with torch.no_grad():
                right = right.index_copy(0, left, some(found).argmax(1) == labels[left])
        columns.append(right.cpu().numpy())
    return np.stack(columns, axis=1)


class _SomeImages(nn.Module):
    """The model of some patients as a function of k images of each, n×(k·C)×H×W; the other images are clean.

    `outputs`, n×S×D, are outputs for the clean images; `chosen`, int n×k, are the images that change.
    """

    def __init__(self, model: PatientModel, outputs: Tensor, chosen: Tensor) -> None:
        super().__init__()
        self.model, self.outputs, self.chosen = model, outputs, chosen

    def forward(self, images: Tensor) -> Tensor:
        changed = self.model.outputs(images.reshape(-1, self.model.channels, *images.shape[-2:]))
        changed = changed.unflatten(0, self.chosen.shape)
        logits: Tensor = self.model.aggregate(
            self.outputs.scatter(1, self.chosen[:, :, None].expand_as(changed), changed)
        )
        return logits
