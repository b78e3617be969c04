"""Stages as scripts: images to run them on, and their commands as dvc.yaml has them."""

import runpy
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from medrobust.core.records import write_table
from medrobust.data.store import Header, write_store

CLASSES = ["Non", "Mild"]
SIDE = 32


def write_data(folder: Path) -> None:
    """48 images of 12 patients, prepared and split."""
    count = 48
    owner = np.arange(count) // 4
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    ids, labels = [f"i{n:02}" for n in range(count)], [CLASSES[patient % 2] for patient in owner]
    rows = {"id": ids, "sha256": "", "label": labels, "patient": [f"p{n:02}" for n in owner], "slice": 1}
    manifest = pd.DataFrame({**rows, "kind": "real", "parent": "", "published_split": ""})
    (folder / "prepared").mkdir(parents=True)
    np.save(folder / "prepared" / "images.npy", pixels)
    counts = dict.fromkeys(CLASSES, count // 2)
    write_store(
        folder / "prepared", manifest,
        Header("phantom", CLASSES, True, SIDE, 1, count, 12, counts, "MIT", "", "", "d" * 64),
    )  # fmt: skip
    split = np.array(["train", "val", "test"])[owner * 3 // 12]
    table = {"id": ids, "label": labels, "patient": rows["patient"], "split": split, "reason": ""}
    write_table(folder / "split.csv", pd.DataFrame(table))


def run_stage(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, **item: str) -> None:
    """Run a stage's script with its command of dvc.yaml."""
    command = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][name]["cmd"]
    command = command.replace("${key}", "-".join(item.values()))
    for key, value in item.items():
        command = command.replace(f"${{item.{key}}}", value)
    _, script, *arguments = shlex.split(command)
    monkeypatch.setattr("sys.argv", [script, *arguments])
    runpy.run_path(str(root / script), run_name="__main__")
