"""What a model says of images: activations of several layers, logits, and answers to changed inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError

#: Layers of a network that are tapped besides the penultimate one.
TAPS = 3


@dataclass(frozen=True)
class Features:
    """Features of n images.

    Attributes:
        layers: pooled activations, each float n×D_l, from early to late; the last are the penultimate features.
        logits: float n×K.
        votes: float n×T×K, probabilities of T changed forward passes (dropout, squeezing); None if not asked for.
    """

    layers: tuple[Tensor, ...]
    logits: Tensor
    votes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def penultimate(self) -> Tensor:
        """The features that the last linear layer sees, n×D."""
        return self.layers[-1]

    @property
    def preds(self) -> Tensor:
        """Predicted classes, int64 n."""
        return self.logits.argmax(1)

    def parts(self) -> list[Tensor]:
        """Every tensor, each with n rows."""
        return [*self.layers, self.logits, *([] if self.votes is None else [self.votes])]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Features":
        """The same features after `change` of every tensor (a choice of rows, a move to a device)."""
        votes = None if self.votes is None else change(self.votes)
        return Features(tuple(change(layer) for layer in self.layers), change(self.logits), votes)


def concatenate(parts: list[Features]) -> Features:
    """Features of all images of the parts, in order."""
    layers = tuple(torch.cat(group) for group in zip(*(part.layers for part in parts), strict=True))
    votes = [part.votes for part in parts if part.votes is not None]
    return Features(layers, torch.cat([part.logits for part in parts]), torch.cat(votes) if votes else None)


class Extractor(Protocol):
    """Gives features of a batch; hashable, so that detectors with equal extractors share one pass."""

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        """Features of images n×C×H×W in [0, 1]; all that is random about an image comes from its seed, int64 n."""


@dataclass(frozen=True)
class DeepFeatures:
    """Spatially averaged activations of a few stages of the backbone, then the penultimate features.

    Of a vote: the penultimate features of every member, then all of them side by side.
    """

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        if hasattr(model, "members"):
            with recorded(heads_of(model)) as seen:
                logits = model(images)
            parts = [features for features, _ in seen]
            return Features((*parts, torch.cat(parts, 1)), logits)
        backbone = _backbone(model)
        with recorded([*taps(backbone), *heads_of(model)]) as seen:
            logits = model(images)
        *stages, penultimate = seen
        return Features((*(_pooled(output) for _, output in stages), penultimate[0]), logits)


def taps(backbone: nn.Module) -> list[nn.Module]:
    """At most `TAPS` stages spread over the backbone, by timm's own list of them; none if it has no list."""
    stages = [str(info["module"]) for info in getattr(backbone, "feature_info", [])]
    early = stages[:-1]  # the last one is what the penultimate features are pooled from
    places = sorted({round(share * (len(early) - 1) / max(TAPS - 1, 1)) for share in range(TAPS)}) if early else []
    return [backbone.get_submodule(early[place]) for place in places]


@contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect (input, output) of each module, in the given order, during one forward pass inside."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    result: list[tuple[Tensor, Tensor]] = []

    def note(place: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[place] = (inputs[0], output)
            if len(seen) == len(modules):
                result[:] = [seen[number] for number in range(len(modules))]

        return hook

    handles = [module.register_forward_hook(note(place)) for place, module in enumerate(modules)]
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()


def heads_of(model: nn.Module) -> list[nn.Module]:
    """The last linear layer of a classifier, or of each member of a vote.

    Raises:
        UserError: the model is no medrobust classifier.
    """
    members: Any = getattr(model, "members", [model])
    return [_backbone(member).get_classifier() for member in members]  # type: ignore[operator]


def _backbone(model: nn.Module) -> nn.Module:
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "get_classifier"):
        remedy = "Give a model of medrobust.load, or a vote of them"
        raise UserError("model", f"{type(model).__name__} has no backbone to tap", remedy)
    return backbone


def _pooled(activation: Tensor) -> Tensor:
    """Mean over positions: n×D×H×W maps and n×T×D tokens both become n×D."""
    if activation.ndim == 4:
        return activation.mean((2, 3))
    return activation.mean(1) if activation.ndim == 3 else activation
