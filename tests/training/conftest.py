"""A small job: two classes, dark and bright, and a network of one convolution."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.data.store import Subset
from medrobust.params.training import AdvParams, AugmentParams, TrainParams
from medrobust.training.loop import Job
from medrobust.training.objectives.registry import OBJECTIVES

AUGMENT = AugmentParams(
    p=0.5, horizontal_flip=True, vertical_flip=True, rotation=10, translate=0.05, scale=[0.9, 1.1],
    brightness=0.1, contrast=0.1, sharpness=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(**changes: Any) -> TrainParams:
    block = {
        "epochs": 4, "lr": 0.01, "optimiser": "Adam", "batch_size": 16, "scheduler": "CosineAnnealingLR",
        "weight_decay": 0.0, "label_smoothing": 0.0, "class_weights": "none", "precision": "fp32", **changes,
    }  # fmt: skip
    return TrainParams.model_validate(block)


def adv(**changes: Any) -> AdvParams:
    return AdvParams.model_validate(
        {"eps": 0.05, "alpha": "auto", "steps": 3, "mix": 0.3, "epochs": 1, "lr_scale": 1.0, **changes}
    )


def subset(n: int = 48, size: int = 16, classes: int = 2) -> Subset:
    """Dark to bright by class, one image a patient."""
    labels = np.arange(n) % classes
    pixels = np.random.default_rng(0).normal(80 + 90 * labels[:, None, None], 20, (n, size, size))
    ids = np.array([f"i{k}" for k in range(n)])
    names = ["dark", "bright", "white"][:classes]
    return Subset(np.clip(pixels, 0, 255).astype(np.uint8), np.arange(n), labels, ids, ids, names)


def network(classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, classes),
    )  # fmt: skip


def make_job(objective: str = "cross_entropy", **changes: Any) -> Job:
    parts: dict[str, Any] = {
        "model": network(), "train": subset(), "val": subset(), "settings": settings(), "augment": AUGMENT,
        "objective": OBJECTIVES[objective], "seed": 1, **changes,
    }  # fmt: skip
    return Job(**parts)


@pytest.fixture
def job() -> Callable[..., Job]:
    """(objective, changes) -> a small job."""
    return make_job
