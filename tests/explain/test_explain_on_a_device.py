"""Maps, drift, loss surfaces and pictures are the same on another device as on the CPU."""

import copy
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.models.classifier import Classifier
from tests.explain.conftest import make_explained
from tests.explain.test_explain_run import run
from tests.other_device import other_device
from tests.small import make_subset


def test_a_cell_writes_the_same_on_both_devices(model: Classifier, suite: dict[str, Any], tmp_path: Path) -> None:
    images = make_subset("test", 5, 2)
    record, table, _ = run(make_explained(model, images, suite), tmp_path / "here")
    with other_device() as device:
        there = make_explained(copy.deepcopy(model).to(device), images, suite)
        found, rows, _ = run(there, tmp_path / "there")
    pd.testing.assert_frame_equal(rows, table)
    assert found == record
