"""Fixtures that turn a sample of a source into its store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.params.data import DataParams
from medrobust.data.prepare import download, prepare
from medrobust.data.pseudonyms import KEY_VARIABLE
from medrobust.data.store import ImageStore
from tests.data.sources.dicom_series import two_series
from tests.data.sources.samples import SAMPLES
from tests.params import default_block

Make = Callable[..., ImageStore]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the secret of pseudonyms, so that no test writes one into the clone."""
    monkeypatch.setenv(KEY_VARIABLE, "the secret of these tests")


@pytest.fixture
def dicom_block(tmp_path: Path) -> dict[str, Any]:
    """The `data` block of two DICOM series of four slices; the table has no patients."""
    return two_series(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """(block, changes) -> the store, prepared anew in `tmp_path/raw` and `tmp_path/prepared`."""

    def run(block: dict[str, Any], **changes: Any) -> ImageStore:
        base = {"ordered": True, "image_size": 24, "channels": 1, "on_bad_image": "fail"}
        data = default_block(DataParams, "data", **{**base, **block, **changes})
        download(data, tmp_path / "raw", seed=1)
        prepare(data, tmp_path / "raw", tmp_path / "prepared")
        return ImageStore.open(tmp_path / "prepared")

    return run


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """(source) -> the `data` block of its sample, which is written to `tmp_path/published`."""

    def write(name: str) -> dict[str, Any]:
        (tmp_path / "published").mkdir()
        return {"source": name, **SAMPLES[name](tmp_path / "published", monkeypatch)}

    return write
