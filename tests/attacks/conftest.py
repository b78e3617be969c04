"""Small models and images for attacks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.lookup import load_attack
from medrobust.data.store import Subset
from tests.small import fit

#: Settings that make attacks quick; most are far too weak for an evaluation.
QUICK: dict[str, dict[str, Any]] = {
    "cw": {"steps": 10, "searches": 2}, "square": {"queries": 20},
    "rays": {"queries": 40}, "hopskipjump": {"queries": 80, "probes": 15}, "fmn": {"steps": 8},
    "patch": {"steps": 6, "restarts": 2},
    "torchattacks": {"attack": "APGD", "steps": 10}, "apgd": {"steps": 10},
    "apgd_t": {"steps": 10, "targets": 2}, "fab": {"steps": 5}, "fab_t": {"steps": 5, "targets": 2},
    "autoattack": {"steps": 6, "queries": 10, "targets": 2, "allow_weak": True}, "deepfool": {"steps": 5},
    "one_pixel": {"population": 10, "generations": 3, "allow_weak": True}, "stripe": {"queries": 20},
    "noise": {"draws": 10}, "vmifgsm": {"neighbours": 2}, "universal": {"epochs": 20},
}  # fmt: skip


@pytest.fixture
def make_attack(subset: Subset) -> Callable[..., Attack]:
    """(name, eps, model, train=..., **settings) -> a registered attack with quick settings."""

    def make(name: str, eps: float, model: nn.Module, train: Subset = subset, **settings: Any) -> Attack:
        known = {**QUICK.get(name, {}), **({"source": model} if name == "transfer" else {}), **settings}
        attack: Attack = load_attack(name)(eps=eps, **known)
        return attack.with_training(train)

    return make


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
    """A small model, trained on the subset, in eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.GELU(), nn.Linear(16, 3))
    return fit(model, subset, steps=120)


class AttackedModel(nn.Sequential):
    """A small trained model with images that it classifies correctly (non-square, some pixels at 0 or 1)."""

    images: Tensor
    labels: Tensor
    seeds: Tensor


@pytest.fixture(scope="session")
def attacked_model() -> Callable[..., AttackedModel]:
    """(classes, channels=1, n=32) -> a trained `AttackedModel` in eval mode."""
    made: dict[tuple[int, int, int], AttackedModel] = {}

    def make(classes: int, channels: int = 1, n: int = 32) -> AttackedModel:
        key = (classes, channels, n)
        if key not in made:
            with torch.random.fork_rng():
                made[key] = _train(classes, channels, n)
        return made[key]

    return make


def _train(classes: int, channels: int, n: int) -> AttackedModel:
    torch.manual_seed(classes)
    labels = torch.arange(n) % classes
    centre = torch.linspace(0.3, 0.7, classes)[labels].view(-1, 1, 1, 1)
    images = (centre + 0.25 * torch.randn(n, channels, 12, 10)).clamp(0, 1)
    model = AttackedModel(
        nn.Conv2d(channels, 8, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(240, 32),
        nn.GELU(), nn.Linear(32, classes),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    optimiser.zero_grad()
    model.eval()
    assert torch.equal(model(images).argmax(1), labels)
    model.images, model.labels, model.seeds = images, labels, torch.arange(n) * 1000 + 7
    return model
