"""Fit an aggregate on training patients; validation patients choose the epoch."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.core.errors import UserError
from medrobust.core.params.patient import PatientParams
from medrobust.core.runtime import say
from medrobust.models.aggregates import build_aggregate
from medrobust.models.classifier import Classifier
from medrobust.models.patient import PatientModel
from medrobust.models.predict import batches
from medrobust.patients.subsets import PatientSubset

#: Patients per step of the optimiser.
PATIENTS_PER_STEP = 8


@dataclass(frozen=True)
class AggregateInputs:
    """What the aggregate reads of patients: inputs n×S×D of each group, and labels n, both on the CPU."""

    inputs: list[Tensor]
    labels: list[Tensor]

    @classmethod
    def of(cls, model: PatientModel, groups: list[PatientSubset]) -> "AggregateInputs":
        """Run the network on every image once."""
        return cls([_outputs(model, group) for group in groups], [torch.from_numpy(g.labels) for g in groups])

    def log_probabilities(self, aggregate: nn.Module) -> Tensor:
        """Log-probabilities of all patients, float64 n×K, in the order of the groups."""
        with torch.no_grad():
            return torch.cat([aggregate(part).double().log_softmax(1) for part in self.inputs])

    def all_labels(self) -> Tensor:
        """Labels of all patients, n, in the order of the groups."""
        return torch.cat(self.labels)


def fit_patient_model(
    network: Classifier, train: list[PatientSubset], val: list[PatientSubset], params: PatientParams,
    channels: int, seed: int,
) -> tuple[PatientModel, int]:  # fmt: skip
    """A fitted patient model on the network's device, and the epoch that validation chose, from 1.

    `mean` and `max` have nothing to fit: their epoch is 0.

    Raises:
        UserError: the validation log-loss was never finite.
    """
    device = next(network.parameters()).device
    torch.manual_seed(seed)
    probe = train[0].batch([0])[:, :channels].to(device)
    with torch.no_grad():
        width = network.features(probe).shape[1]
    aggregate = build_aggregate(params.aggregate, width, params.hidden, len(network.classes))
    model = PatientModel(network, aggregate, channels).eval()
    epoch = 0
    if list(aggregate.parameters()):
        seen, held_out = AggregateInputs.of(model, train), AggregateInputs.of(model, val)
        epoch = _fit(aggregate, seen, held_out, params, seed)
    return model.to(device).eval(), epoch


def _fit(
    aggregate: nn.Module, train: AggregateInputs, val: AggregateInputs, params: PatientParams, seed: int
) -> int:
    """Adam on class-balanced cross-entropy; keep the epoch with the lowest validation log-loss."""
    aggregate.set_statistics(torch.cat([part.flatten(0, 1) for part in train.inputs]))  # type: ignore[operator]
    labels = train.all_labels()
    counts = torch.bincount(labels).clamp_min(1)
    weight = len(labels) / (len(counts) * counts.float())
    patients = [(group, row) for group, part in enumerate(train.inputs) for row in range(len(part))]
    optimiser = torch.optim.Adam(aggregate.parameters(), lr=params.lr)
    generator = torch.Generator().manual_seed(seed)
    best, best_state, chosen = math.inf, {}, 0
    for epoch in range(1, params.epochs + 1):
        order = torch.randperm(len(patients), generator=generator).tolist()
        for start in range(0, len(order), PATIENTS_PER_STEP):
            drawn = [patients[i] for i in order[start : start + PATIENTS_PER_STEP]]
            logits = torch.cat([aggregate(train.inputs[group][row][None]) for group, row in drawn])
            wanted = torch.stack([train.labels[group][row] for group, row in drawn])
            optimiser.zero_grad()
            F.cross_entropy(logits, wanted, weight).backward()
            optimiser.step()
        loss = float(F.nll_loss(val.log_probabilities(aggregate), val.all_labels()))
        if loss < best:
            best, best_state, chosen = loss, copy.deepcopy(aggregate.state_dict()), epoch
    if not chosen:
        found = "no epoch of the aggregate has a finite validation log-loss"
        raise UserError(f"params.yaml: patient.lr: {params.lr:g}", found, "Set a lower patient.lr")
    aggregate.load_state_dict(best_state)
    say(f"{params.aggregate}: epoch {chosen} of {params.epochs} has the lowest validation log-loss, {best:.3f}")
    return chosen


def _outputs(model: PatientModel, group: PatientSubset) -> Tensor:
    """What the aggregate reads, n×S×D on the CPU."""
    device = next(model.parameters()).device
    parts = []
    for rows in batches(len(group), group.rows_per_pass):
        images = group.batch(rows).to(device)
        with torch.no_grad():
            flat = model.outputs(images.reshape(-1, model.channels, *images.shape[-2:]))
        parts.append(flat.reshape(len(rows), group.images_per_row, -1).cpu())
    return torch.cat(parts)
