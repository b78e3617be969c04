"""Classifiers of images in [0, 1]. Preprocessing is part of the model, so that attacks act on the input image."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Resizing, repetition of a grey channel and normalisation, followed by a backbone.

    The backbone is a timm model for 3-channel images with `forward_features` and `forward_head`, whose input has
    sides of `image_size` pixels. `classes` are in the order of the logits; `mean` and `std` have one number per
    channel.
    """

    mean: Tensor
    std: Tensor
    folder: Path | None = None  # that it was loaded from

    def __init__(
        self, backbone: nn.Module, classes: list[str], image_size: int, mean: list[float], std: list[float]
    ) -> None:
        super().__init__()
        self.backbone, self.classes, self.image_size = backbone, classes, image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 n×K, of images n×1×H×W or n×3×H×W in [0, 1] of any height and width."""
        logits: Tensor = self.backbone(self._normalise(images))
        return logits.float()

    def train(self, mode: bool = True) -> "Classifier":
        """Set train or eval mode; modules whose own parameters are all frozen stay in eval mode."""
        super().train(mode)
        for module in self.modules() if mode else []:
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.training = False
        return self

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features, n×D, of images in the format of `forward`."""
        maps = self.backbone.forward_features(self._normalise(images))  # type: ignore[operator]
        return self.backbone.forward_head(maps, pre_logits=True)  # type: ignore[operator]

    def _normalise(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            # torch supports antialiasing in float32 and float64 only.
            wide = images.to(torch.promote_types(images.dtype, torch.float32))
            images = F.interpolate(wide, size=size, mode="bilinear", antialias=True).to(images.dtype)
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std
