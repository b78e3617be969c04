"""A data set and a classifier so small that a test can train it: three classes of 12×12 grey images."""

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.data.store import Subset
from medrobust.models.classifier import Classifier

CLASSES = ["a", "b", "c"]


class Backbone(nn.Module):
    """What a classifier asks of a timm model, in two convolutions: maps of 12×12 and of 6×6."""

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
    """Four images a patient; the classes differ by where a blurred square stands."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), 4)
    labels = owner % 3
    pixels = rng.normal(90, 18, (len(owner), 12, 12))
    for row, label in enumerate(labels):
        pixels[row, 1 + 3 * label : 5 + 3 * label, 2:9] += 45
    ids = np.array([f"{name}{number:02}" for number in range(len(owner))])
    owners = np.array([f"{name}-p{number}" for number in owner])
    return Subset(pixels.clip(0, 255).astype(np.uint8), np.arange(len(owner)), labels, ids, owners, CLASSES)


def make_classifier(drop: float = 0.0) -> Classifier:
    """The untrained classifier, the same at each call, with that much dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(Backbone(drop), CLASSES, 12, [0.4] * 3, [0.2] * 3)


def fit(model: nn.Module, subset: Subset, steps: int) -> nn.Module:
    """The model after that many Adam steps on the whole subset, in eval mode."""
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    rows = range(len(subset.labels))
    images, labels = subset.batch(rows), subset.targets(rows)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval()
