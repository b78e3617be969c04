"""Features of images under a model: activations of several layers, logits, and predictions on changed inputs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models.feature_maps import recorded, stage_names
from medrobust.models.predict import batches

#: Layers of a network that are recorded besides the penultimate one.
TAPS = 3
BATCH = 64


@dataclass(frozen=True)
class Features:
    """Features of n images.

    Attributes:
        layers: pooled activations, each float n×D_l, from early to late; the last are the penultimate features.
        logits: float n×K.
        samples: float n×T×K, probabilities of T changed forward passes (dropout, squeezing); None without any.
    """

    layers: tuple[Tensor, ...]
    logits: Tensor
    samples: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def penultimate(self) -> Tensor:
        """The input of the last linear layer, n×D."""
        return self.layers[-1]

    @property
    def preds(self) -> Tensor:
        return self.logits.argmax(1)

    def parts(self) -> list[Tensor]:
        return [*self.layers, self.logits, *([] if self.samples is None else [self.samples])]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Features":
        """The same features with `change` applied to every tensor (to select rows, or to move to a device)."""
        samples = None if self.samples is None else change(self.samples)
        return Features(tuple(change(layer) for layer in self.layers), change(self.logits), samples)


def concatenate(parts: list[Features]) -> Features:
    """Features of all images of the parts, in order."""
    layers = tuple(torch.cat(group) for group in zip(*(part.layers for part in parts), strict=True))
    samples = [part.samples for part in parts if part.samples is not None]
    return Features(layers, torch.cat([part.logits for part in parts]), torch.cat(samples) if samples else None)


class Extractor(Protocol):
    """Computes features of a batch. Hashable, so that detectors with equal extractors share one pass."""

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        """Features of images n×C×H×W in [0, 1]; all randomness of an image comes from its seed, int64 n."""


@dataclass(frozen=True)
class DeepFeatures:
    """Spatially averaged activations of a few stages of the backbone, then the penultimate features.

    For an ensemble: the penultimate features of every member, then all of them concatenated.
    """

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        if hasattr(model, "members"):
            with recorded(heads_of(model)) as seen:
                logits = model(images)
            parts = [features for features, _ in seen]
            return Features((*parts, torch.cat(parts, 1)), logits)
        backbone = _backbone(model)
        with recorded([*tapped_stages(backbone), *heads_of(model)]) as seen:
            logits = model(images)
        *stages, penultimate = seen
        return Features((*(_pooled(output) for _, output in stages), penultimate[0]), logits)


def extract_features(
    model: nn.Module, extractors: Iterable[Extractor], subset: Subset, seed: int, images: Tensor | None = None
) -> dict[Extractor, Features]:
    """Features of a subset's images under each extractor, without gradients, on the CPU.

    The model is in eval mode. `images` (n×C×H×W in [0, 1]) replaces the subset's own, whose ids give the seeds.
    Equal extractors share a pass.
    """
    device, seeds = next(model.parameters()).device, image_seeds(subset.ids, seed)
    features: dict[Extractor, list[Features]] = {extractor: [] for extractor in extractors}
    for rows in batches(len(seeds), BATCH):
        batch = (subset.batch(rows) if images is None else images[rows]).to(device)
        with torch.no_grad():
            for extractor, parts in features.items():
                own = extractor(model, batch, seeds[rows].to(device))
                parts.append(own.map(lambda part: part.cpu()))
    return {extractor: concatenate(parts) for extractor, parts in features.items()}


def tapped_stages(backbone: nn.Module) -> list[nn.Module]:
    """At most `TAPS` stages spread over the backbone, from timm's list of stages; none if it has no list."""
    early = stage_names(backbone)[:-1]  # the last stage is what the penultimate features are pooled from
    last = len(early) - 1
    positions = sorted({round(share * last / max(TAPS - 1, 1)) for share in range(TAPS)}) if early else []
    return [backbone.get_submodule(early[position]) for position in positions]


def heads_of(model: nn.Module) -> list[nn.Module]:
    """The last linear layer of a classifier, or of each member of an ensemble.

    Raises:
        UserError: the model is not a medrobust classifier.
    """
    members: Any = getattr(model, "members", [model])
    return [_backbone(member).get_classifier() for member in members]  # type: ignore[operator]


def _backbone(model: nn.Module) -> nn.Module:
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "get_classifier"):
        remedy = "Use a model of medrobust.load, or an ensemble of them"
        raise UserError("model", f"{type(model).__name__} has no backbone to take features from", remedy)
    return backbone


def _pooled(activation: Tensor) -> Tensor:
    """Mean over positions: n×D×H×W maps and n×T×D tokens both become n×D."""
    if activation.ndim == 4:
        return activation.mean((2, 3))
    return activation.mean(1) if activation.ndim == 3 else activation
