"""What an objective is: a function from one step of training to the number that the step minimises."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.core.errors import UserError
from medrobust.core.params.training import AdvParams, TrainParams
from medrobust.core.processes import world_size
from medrobust.training import distributed
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.settings import Entry


@dataclass
class Step:
    """One batch, and what an objective may ask of the training that it belongs to.

    Attributes:
        model: in train mode; takes images n×C×H×W in [0, 1].
        images: float n×C×H×W in [0, 1], augmented.
        labels: int64 n.
        seeds: int64 n; all that is random about an image's attack comes from its seed.
        train, adv: the settings of this training; `adv` is None for clean training.
        weight: of the classes in the cross-entropy, float K; None = all 1.
        progress: share of the epochs that will be done when this one is; 1 in the last.
        unlabelled: images n'×C×H×W without a label of their own, and their pseudo-labels; None = none.
        memory: tensors that an objective keeps from step to step; the resume file holds them.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    seeds: Tensor
    train: TrainParams
    adv: AdvParams | None = None
    weight: Tensor | None = None
    progress: float = 1.0
    unlabelled: tuple[Tensor, Tensor, Tensor] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    _kept: dict[str, Tensor] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gave when this step first asked for `name`.

        Weight perturbation asks an objective twice for its loss; the attack must be that of the first time.
        """
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def cross_entropy(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, weighted by class and smoothed as the settings say (labels: the batch's own)."""
        own = self.labels if labels is None else labels
        loss = F.cross_entropy(logits, own, self.weight, label_smoothing=self.train.label_smoothing)
        return self._part(own) * loss

    def mean(self, losses: Tensor) -> Tensor:
        """Mean of each image's loss, n, weighted by the image's class as `cross_entropy` weights it."""
        if self.weight is None:
            return losses.mean()
        weight = self.weight[self.labels]
        return self._part(self.labels) * (weight * losses).sum() / weight.sum()

    def _part(self, labels: Tensor) -> Tensor | float:
        """What a mean over this process's labels is multiplied by; 1 where there is one process.

        The loop averages the processes' losses by how many images each has. Where classes have weights, or
        unlabelled images are shared otherwise than labelled ones, that is the mean over all labels only if each
        process counts by the weight of its own.
        """
        if world_size() == 1:
            return 1.0
        weight = labels.new_ones(len(labels), dtype=torch.float32) if self.weight is None else self.weight[labels]
        own = torch.stack([weight.sum(), weight.new_tensor(len(self.images))])
        part = own / distributed.total(own)
        return part[0] / part[1]

    def attacked(self) -> AdvParams:
        """The `adv` block of an objective that cannot do without it."""
        assert self.adv is not None, "the registry lets only objectives without attack into clean training"
        return self.adv


Objective = Callable[[Step], Tensor]


def load_objective(entry: Entry) -> Objective:
    """The function of an entry.

    Raises:
        UserError: the registry has no such objective; a settings file never names code of its own to run.
    """
    if entry.target not in {known.target for known in OBJECTIVES.values()}:
        raise UserError("objective", f"no objective at {entry.target!r}", "Run `dvc repro settings`")
    module, _, function = entry.target.partition(":")
    found: Objective = getattr(import_module(module), function)
    return found


def both(model: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
    """Logits of several batches that pass the model as one, so that BatchNorm sees their mixture."""
    logits = model(torch.cat(parts))
    return torch.split(logits, [len(part) for part in parts])
