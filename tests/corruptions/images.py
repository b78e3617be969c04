"""Images for tests of corruptions: smooth blobs with a black border, so that no pixel comes from outside."""

import torch
from torch import Tensor
from torch.nn import functional


def blobs(count: int = 3, channels: int = 1, size: int = 32, border: int = 6) -> Tensor:
    """Images n×C×size×size in [0, 1], the same at each call."""
    drawn = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(3))
    inside = functional.interpolate(drawn, size - 2 * border, mode="bicubic").clamp(0.05, 0.9)
    return functional.pad(inside, (border,) * 4)
