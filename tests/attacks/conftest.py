"""Small models and images for attacks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.data.store import Subset

Build = Callable[[int, int], nn.Module]


@pytest.fixture
def build() -> Build:
    """(channels, classes) -> a small network with BatchNorm and dropout, in train mode."""

    def make(channels: int, classes: int) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.AdaptiveAvgPool2d(3),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, classes),
        )  # fmt: skip

    return make


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """(n, channels, height, width) -> images in [0, 1], some pixels exactly at the ends."""

    def make(n: int, channels: int = 1, height: int = 12, width: int = 10) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return (torch.rand(n, channels, height, width, generator=generator) * 1.4 - 0.2).clamp(0, 1)

    return make


@pytest.fixture
def subset() -> Subset:
    """Forty grey images of ten patients in three classes, brighter with the class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [16, 12, 12])
    pixels = np.clip(rng.normal(60 + 60 * labels[:, None, None], 25, (40, 12, 12)), 0, 255).astype(np.uint8)
    ids = np.array([f"i{number}" for number in range(40)])
    patients = np.array([f"p{number // 4}" for number in range(40)])
    return Subset(pixels, np.arange(40), labels, ids, patients, ["a", "b", "c"])


@pytest.fixture
def trained(subset: Subset) -> nn.Module:
    """A sound small model of the subset, in eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.GELU(), nn.Linear(16, 3))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = subset.batch(range(40)), subset.targets(range(40))
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval()
