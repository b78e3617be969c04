"""The interface of objectives: a function from one training step to the loss that the step minimises."""

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
from medrobust.training.settings import ObjectiveEntry


@dataclass
class Step:
    """One batch, and what an objective can use of the training that it belongs to."""

    model: nn.Module  # in train mode; takes images n×C×H×W in [0, 1]
    images: Tensor  # float n×C×H×W in [0, 1], augmented
    labels: Tensor  # int64 n
    seeds: Tensor  # int64 n; all randomness of an image's attack comes from its seed
    train: TrainParams
    adv: AdvParams | None = None  # None for clean training
    weight: Tensor | None = None  # class weights of the cross-entropy, float K; None = all 1
    progress: float = 1.0  # share of the epochs that are done after the current one; 1 in the last epoch
    unlabelled: tuple[Tensor, Tensor, Tensor] | None = None  # images n'×C×H×W, their pseudo-labels and seeds
    memory: dict[str, Tensor] = field(default_factory=dict)  # kept from step to step and stored in the resume file
    _cache: dict[str, Tensor] = field(default_factory=dict)

    def cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The result of `make` when this step first asked for `name`.

        Weight perturbation computes the loss of a step twice; both times the attacked images must be the same.
        """
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def cross_entropy(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of logits n×K, with class weights and smoothing; labels default to the batch's."""
        targets = self.labels if labels is None else labels
        loss = F.cross_entropy(logits, targets, self.weight, label_smoothing=self.train.label_smoothing)
        return self._process_factor(targets) * loss

    def mean(self, losses: Tensor) -> Tensor:
        """Mean of the losses per image, n, weighted by class as in `cross_entropy`."""
        if self.weight is None:
            return losses.mean()
        weight = self.weight[self.labels]
        return self._process_factor(self.labels) * (weight * losses).sum() / weight.sum()

    def _process_factor(self, labels: Tensor) -> Tensor | float:
        """The factor of a mean over this process's labels; 1 for a single process."""
        if world_size() == 1:
            return 1.0
        # The loop weights the loss of a process by its number of images. With class weights or unlabelled images,
        # the result is the mean over all labels only if the loss is also scaled by the weight of its labels.
        weight = labels.new_ones(len(labels), dtype=torch.float32) if self.weight is None else self.weight[labels]
        own = torch.stack([weight.sum(), weight.new_tensor(len(self.images))])
        share = own / distributed.sum_over_processes(own)
        return share[0] / share[1]

    def require_adv(self) -> AdvParams:
        """The `adv` block, for objectives that need it."""
        assert self.adv is not None, "the registry lets only objectives without attack into clean training"
        return self.adv


Objective = Callable[[Step], Tensor]


def load_objective(entry: ObjectiveEntry) -> Objective:
    """Import the function of an entry.

    Raises:
        UserError: the registry has no objective with this target, so that a settings file cannot run other code.
    """
    if entry.target not in {known.target for known in OBJECTIVES.values()}:
        raise UserError("objective", f"no objective at {entry.target!r}", "Run `dvc repro settings`")
    module, _, function = entry.target.partition(":")
    return getattr(import_module(module), function)


def joint_logits(model: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
    """Logits of several batches from one pass, so that BatchNorm sees their mixture."""
    logits = model(torch.cat(parts))
    return torch.split(logits, [len(part) for part in parts])
