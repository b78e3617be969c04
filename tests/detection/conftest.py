"""A small classifier of a small grey data set, and detectors to try on it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.random import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.extract import all_features
from medrobust.detection.features import DeepFeatures, Features
from medrobust.detection.fitting import Splits
from medrobust.models.classifier import Classifier

CLASSES = ["a", "b", "c"]


class Backbone(nn.Module):
    """What a classifier asks of a timm model, in two convolutions."""

    feature_info = (
        {"module": "stem", "num_chs": 6, "reduction": 1},
        {"module": "deep", "num_chs": 10, "reduction": 2},
    )

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU())
        self.deep = nn.Sequential(nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.GELU())
        self.drop, self.fc = nn.Dropout(drop), nn.Linear(40, 3)

    def forward_features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.deep(self.stem(images))
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.drop(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
        result: Tensor = pooled if pre_logits else self.fc(pooled)
        return result

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc


def make_subset(name: str, patients: int, seed: int) -> Subset:
    """Four images a patient, three classes that differ by where a blurred square stands."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), 4)
    labels = owner % 3
    pixels = rng.normal(90, 18, (len(owner), 12, 12))
    for row, label in enumerate(labels):
        pixels[row, 1 + 3 * label : 5 + 3 * label, 2:9] += 45
    ids = np.array([f"{name}{number}" for number in range(len(owner))])
    owners = np.array([f"{name}-p{number}" for number in owner])
    return Subset(pixels.clip(0, 255).astype(np.uint8), np.arange(len(owner)), labels, ids, owners, CLASSES)


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Train, val and test of 30, 12 and 9 patients."""
    return Splits(make_subset("train", 30, 0), make_subset("val", 12, 1), make_subset("test", 9, 2), seed=5)


@pytest.fixture(scope="session")
def build() -> Callable[..., Classifier]:
    """`drop` -> an untrained classifier with that much dropout."""

    def make(drop: float = 0.0) -> Classifier:
        torch.manual_seed(0)
        return Classifier(Backbone(drop), CLASSES, 12, [0.4] * 3, [0.2] * 3)

    return make


@pytest.fixture(scope="session")
def model(splits: Splits, build: Callable[..., Classifier]) -> Classifier:
    """A classifier trained on the training images, in eval mode."""
    classifier = build()
    optimiser = torch.optim.Adam(classifier.parameters(), 3e-3)
    images, labels = splits.train.batch(range(120)), splits.train.targets(range(120))
    for _ in range(80):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(images), labels).backward()
        optimiser.step()
    return classifier.eval()


@pytest.fixture(scope="session")
def said(model: Classifier, splits: Splits) -> dict[str, Features]:
    """Deep features of train, val and test."""
    parts = {name: getattr(splits, name) for name in ("train", "val", "test")}
    return {
        name: all_features(model, [DeepFeatures()], part, image_seeds(part.ids, 5))[DeepFeatures()]
        for name, part in parts.items()
    }


@pytest.fixture(scope="session")
def suite() -> dict[str, Any]:
    """A resolved suite of one attack."""
    entry = {"name": "pgd", "module": "medrobust.attacks.pgd", "class": "PGD", "hyperparameters": {"steps": 5}}
    return {"name": "pgd", "norm": "Linf", "eps": [0.1], "attacks": [entry], "sources": ""}
