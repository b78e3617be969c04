"""A small trained classifier with feature maps, its test images, and a suite's evaluation of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.engine import attack_suite
from medrobust.data.store import Subset
from medrobust.evaluation import predict, predictions_table
from medrobust.explain.subject import Subject
from medrobust.models.classifier import Classifier

CLASSES = ["a", "b", "c"]


class Backbone(nn.Module):
    """What a classifier asks of a timm model, in two convolutions: maps of 12×12 and of 6×6."""

    feature_info = ({"module": "stem"}, {"module": "deep"})

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU())
        self.deep = nn.Sequential(nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.GELU())
        self.fc = nn.Linear(40, 3)

    def forward_features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.deep(self.stem(images))
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)
        result: Tensor = pooled if pre_logits else self.fc(pooled)
        return result

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


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


@pytest.fixture(scope="session")
def model() -> Classifier:
    """Trained for so short a time that it errs now and then; in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = Classifier(Backbone(), CLASSES, 12, [0.4] * 3, [0.2] * 3)
        optimiser = torch.optim.Adam(classifier.parameters(), 3e-3)
        train = make_subset("train", 30, 0)
        images, labels = train.batch(range(120)), train.targets(range(120))
        for _ in range(30):
            optimiser.zero_grad()
            nn.functional.cross_entropy(classifier(images), labels).backward()
            optimiser.step()
    return classifier.eval()


@pytest.fixture(scope="session")
def suite() -> dict[str, Any]:
    """A resolved suite of two attacks."""
    entries = [{"steps": 4}, {"steps": 4, "loss": "margin"}]
    attacks = [
        {"name": "pgd", "module": "medrobust.attacks.pgd", "class": "PGD", "hyperparameters": entry}
        for entry in entries
    ]
    return {"name": "pgd", "norm": "Linf", "eps": [0.02, 0.1], "attacks": attacks, "sources": ""}


@pytest.fixture(scope="session")
def subject(model: Classifier, suite: dict[str, Any]) -> Subject:
    """The model, nine test patients, and what the suite did to them."""
    return make_subject(model, make_subset("test", 9, 2), suite)


def make_subject(model: nn.Module, test: Subset, suite: dict[str, Any]) -> Subject:
    """A subject whose evaluation is run here."""
    return Subject(
        model=model, test=test, train=make_subset("train", 6, 0), suite=suite, cells=4, seed=3,
        predictions=predictions_table(test, "test", predict(model, test)),
        attempts=attack_suite(model, test, suite, seed=3),
    )  # fmt: skip


@pytest.fixture(scope="session")
def attempts(subject: Subject) -> pd.DataFrame:
    """The suite's records."""
    return subject.attempts
