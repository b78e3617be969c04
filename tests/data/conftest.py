"""Small raw data sets."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.params.data import DataParams
from tests.data.sources.samples import encoded
from tests.params import default_block


@pytest.fixture
def params() -> Any:
    """(changes) -> the `data` block of an archive with classes Non and Mild."""

    def make(**changes: Any) -> DataParams:
        values = {
            "source": "archive", "classes": ["Non Demented", "Mild_Demented"], "ordered": True, "image_size": 16,
            "channels": 1, "on_bad_image": "fail", "phantom": None, **changes,
        }  # fmt: skip
        return default_block(DataParams, "data", **values)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders in train and test in an outer folder; names with spaces and non-ASCII characters."""
    top = tmp_path / "raw data"
    for split in ("train", "Test"):
        for number, label in enumerate(("Non_Demented", "mild-demented")):
            path = top / "wrap" / split / label
            path.mkdir(parents=True)
            for index in range(3):
                (path / f"é {index}.png").write_bytes(encoded(number * 100 + index + len(split)))
    return top
