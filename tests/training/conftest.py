"""A small job with two classes, dark and bright, and a network with one convolution; a folder to run stages in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from medrobust.core.params.training import AdvParams, AugmentParams, TrainParams
from medrobust.core.records import write_table
from medrobust.data.store import Header, Subset, write_store
from medrobust.training.loop import Job
from medrobust.training.objectives.registry import OBJECTIVES
from tests.params import default_block, preset, save
from tests.warm_python import warm_python

AUGMENT = AugmentParams(
    p=0.5, horizontal_flip=True, vertical_flip=True, rotation=10, translate=0.05, scale=[0.9, 1.1],
    brightness=0.1, contrast=0.1, sharpness=0.5, probabilities={}, gamma=[1, 1],
)  # fmt: skip


@pytest.fixture(autouse=True)
def _temporary_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(**changes: Any) -> TrainParams:
    values = {
        "epochs": 4, "lr": 0.01, "optimiser": "Adam", "batch_size": 16, "scheduler": "CosineAnnealingLR",
        "weight_decay": 0.0, "label_smoothing": 0.0, "class_weights": "none", "precision": "fp32", **changes,
    }  # fmt: skip
    return default_block(TrainParams, "train", **values)


def adv(**changes: Any) -> AdvParams:
    values = {"eps": 0.05, "alpha": "auto", "steps": 3, "mix": 0.3, "epochs": 1, "lr_scale": 1.0, **changes}
    return default_block(AdvParams, "adv", **values)


def subset(n: int = 48, size: int = 16, classes: int = 2) -> Subset:
    """Images that get brighter from class to class, one image per patient."""
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


#: The backbone of the smoke preset, which other blocks of the preset name too.
BACKBONE = "resnet10t"


class Workspace:
    """A folder in which stage scripts run as under DVC, on small images of two classes."""

    def __init__(self, folder: Path, root: Path, *, images: bool = True, **changes: Any) -> None:
        self.folder, self.root = folder, root
        params = preset("smoke")
        model = {"timm": "resnet10t", "weights": "none", "image_size": 32}
        params["models"] = {BACKBONE: model}
        params["train"] |= {"epochs": 3, "lr": 3e-3, "batch_size": 16}
        params["adv"] |= {"epochs": 3, "steps": 2}
        params["tune"] |= {"trials": 3, "epochs": 2}
        params["tune"]["space"] |= {"batch_size": [16, 32]}
        for name, values in changes.items():
            params[name] |= values
        folder.mkdir(parents=True, exist_ok=True)
        save(folder, params)
        if images:
            write_images(folder, subset(96, 32))

    def command(self, stage: str) -> list[str]:
        """A stage's command in dvc.yaml for the backbone."""
        _, script, *rest = self.node(stage)["cmd"].split()
        return [sys.executable, str(self.root / script), *rest]

    def node(self, stage: str) -> dict[str, Any]:
        """A stage's node in dvc.yaml for the backbone."""
        text = (self.root / "dvc.yaml").read_text().replace("${item.backbone}", BACKBONE)
        node: dict[str, Any] = yaml.safe_load(text)["stages"][stage]
        return node

    def outs(self, stage: str) -> list[Path]:
        """The paths that the stage writes."""
        node = self.node(stage)
        entries = [entry for kind in ("outs", "metrics", "plots") for entry in node[kind]]
        return [self.folder / (entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]

    def environment(self, **variables: str) -> dict[str, str]:
        defaults = {"PYTHONPATH": str(self.root / "src"), "OMP_NUM_THREADS": "1", "MEDROBUST_DEVICE": "cpu"}
        return {**os.environ, **defaults, **variables}

    def run(self, stage: str, **variables: str) -> str:
        """Run a stage to its end and return its output."""
        command = [str(Path(warm_python()) / "python"), *self.command(stage)[1:]]
        environment = self.environment(**variables)
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def results(self) -> dict[str, bytes]:
        """The content of every file that a seed decides, by name; without times and cards."""
        contents = {}
        for top in ("data/tune", "data/predictions", "data/checkpoints", "metrics", "plots"):
            for path in sorted((self.folder / top).rglob("*")):
                if path.suffix in {".csv", ".tsv", ".parquet", ".safetensors"} and "live" not in path.parts:
                    contents[path.relative_to(self.folder).as_posix()] = path.read_bytes()
                elif path.name != "card.json" and path.suffix == ".json" and "live" not in path.parts:
                    content = json.loads(path.read_text())
                    for part in (content, *content.get("details", [])):
                        part.pop("seconds", None)
                    contents[path.relative_to(self.folder).as_posix()] = json.dumps(content).encode()
        return contents


def write_images(folder: Path, data: Subset | None = None) -> None:
    """Write a prepared store and a split table under `data/`, with a third of the images in each split."""
    data = data or subset(96, 32)
    prepared = folder / "data" / "prepared"
    prepared.mkdir(parents=True)
    np.save(prepared / "images.npy", data.store_images)
    labels = np.array(data.classes)[data.labels]
    manifest = pd.DataFrame({"id": data.ids, "sha256": "x", "label": labels, "patient": data.ids, "slice": 0})
    counts = {name: int((labels == name).sum()) for name in data.classes}
    size = data.store_images.shape[1]
    header = Header("s", data.classes, True, size, 1, len(data), len(data), counts, "l", "c", "u", "hash")
    write_store(prepared, manifest.assign(kind="real", parent="", published_split=""), header)
    splits = np.array(["train", "val", "test"])[np.arange(len(data)) // 2 % 3]
    table = pd.DataFrame({"id": data.ids, "split": splits, "label": labels, "reason": ""})
    write_table(folder / "data" / "split.csv", table)


@pytest.fixture
def job() -> Callable[..., Job]:
    """Function (objective, changes) -> small job."""
    return make_job
