"""Feature squeezing (Xu, Evans & Qi 2018, arXiv 1704.01155): how far predictions change on a coarser image."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.core.errors import UserError
from medrobust.core.params.base import Natural
from medrobust.detection.base import Detector
from medrobust.detection.features import Features


@dataclass(kw_only=True)
class FeatureSqueezing(Detector):
    """Largest L1 distance between the probabilities of an image and of its squeezed versions; from 0 to 2.

    Squeezers: 2^`bits` grey levels, and a median filter of odd side `window` in pixels; 0 = no such squeezer.
    """

    bits: Natural = 5
    window: Natural = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        even = self.window > 0 and self.window % 2 == 0
        if not (self.bits or self.window) or even:
            found = f"bits {self.bits}, window {self.window}"
            raise UserError("squeeze", found, "Set bits above 0, an odd window, or both")

    @property
    def extractor(self) -> "Squeezed":
        return Squeezed(self.bits, self.window)

    def learn(self, features: Features, labels: Tensor, attacked: Features | None, seed: int) -> dict[str, Tensor]:
        return {}

    def suspicion(self, features: Features) -> Tensor:
        assert features.samples is not None
        own = features.logits.softmax(1)[:, None]
        return (features.samples - own).abs().sum(2).amax(1).double()


@dataclass(frozen=True)
class Squeezed:
    """Probabilities of squeezed versions of each image."""

    bits: int
    window: int

    def __call__(self, model: nn.Module, images: Tensor, seeds: Tensor) -> Features:
        versions = [reduce_bits(images, self.bits)] if self.bits else []
        if self.window:
            versions.append(median(images, self.window))
        samples = torch.stack([model(version).softmax(1) for version in versions], 1)
        return Features((), model(images), samples)


def reduce_bits(images: Tensor, bits: int) -> Tensor:
    """Round to 2^bits levels; the gradient is passed through unchanged (Athalye et al. 2018)."""
    top = 2**bits - 1
    rounded: Tensor = (images * top).round() / top
    return images + (rounded - images).detach()


def median(images: Tensor, window: int) -> Tensor:
    """Median over a window×window neighbourhood with mirrored edges, n×C×H×W."""
    half, (n, channels, height, width) = window // 2, images.shape
    padded = F.pad(images, (half, half, half, half), mode="reflect")
    patches = F.unfold(padded, window).view(n, channels, window**2, height * width)
    return patches.median(2).values.view(n, channels, height, width)
