"""The attack benchmark takes images of all classes, and compares programs on the same images."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from medrobust.data.store import ImageStore, Subset
from tests.data.stores import store


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the benchmark."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    return import_module("benchmarks.attacks")


@pytest.fixture
def split(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A split of 18 patients in order of their classes, a third of each class in test, val and train."""
    images = store([6, 6, 6])
    patients = images.manifest["patient"].str[1:].astype(int)
    names = np.array(["test", "val", "train"])[patients % 3]
    table = images.manifest[["id", "label"]].assign(split=names)
    monkeypatch.setattr(benchmark, "read_table", lambda *args, **named: table)
    monkeypatch.setattr(ImageStore, "open", lambda folder: images)
    return table


@pytest.mark.parametrize("count", [3, 6, 24])
def test_the_images_are_of_all_classes(count: int, benchmark: Any, split: pd.DataFrame) -> None:
    found = benchmark.read_images(Path("p"), Path("s"), count)
    assert len(set(found.ids)) == count
    assert set(split.set_index("id").loc[found.ids, "split"]) == {"test"}
    assert np.bincount(found.labels).tolist() == [count // 3] * 3


def test_validation_and_training_images_follow_the_test_images(benchmark: Any, split: pd.DataFrame) -> None:
    found = benchmark.read_images(Path("p"), Path("s"), 30)
    of = split.set_index("id").loc[found.ids, "split"]
    assert of.value_counts().to_dict() == {"test": 24, "val": 6}
    assert np.bincount(found.labels[24:]).tolist() == [2, 2, 2]
    assert len(benchmark.read_images(Path("p"), Path("s"), 1000)) == 72


@pytest.mark.parametrize("others", [1, 5, 100])
def test_programs_are_compared_on_the_same_images(others: int, benchmark: Any, split: pd.DataFrame) -> None:
    """All of them call the first class robust, so no one is above its rival."""
    subset = benchmark.read_images(Path("p"), Path("s"), 24)
    parts = [benchmark.part_of(subset, np.arange(first, 24, 2)) for first in range(2)]

    def program(model: nn.Module, images: Subset, radii: list[float]) -> np.ndarray:
        return (images.labels == 0)[None]

    who = dict.fromkeys(("torchattacks", "medrobust", "foolbox"), program)
    tallies = benchmark.compete(nn.Identity(), parts, [0.1], who, others)
    assert [tally.images for tally in tallies.values()] == [24, 24, min(others, 12)]
    unit = benchmark.Unit((1.0, 1.0), (1.0, 1.0))
    rows = benchmark.rows_of("cell", tallies, unit, 1.0)
    assert [row["above"] for row in rows] == ["+0", "+0", "+0"]
    assert all(np.bincount(part.labels).tolist() == [4, 4, 4] for part in parts)
