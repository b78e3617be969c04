"""The contract of data sources; every source in the registry is tested with its sample."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.base import get_source
from medrobust.data.sources.registry import SOURCES
from medrobust.data.store import MANIFEST_COLUMNS, ImageStore
from tests.data.sources.conftest import Make
from tests.data.sources.samples import SAMPLES
from tests.params import default_block


@pytest.fixture(params=SOURCES)
def block(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The `data` block of a sample of each source."""
    name = request.param
    assert name in SAMPLES, f"add a sample of {name} in the published format to samples.py"
    (tmp_path / "published").mkdir()
    base = {"ordered": True, "image_size": 16, "channels": 1, "on_bad_image": "fail"}
    return {**base, "source": name, **SAMPLES[name](tmp_path / "published", monkeypatch)}


def make(block: dict[str, Any], folder: Path) -> ImageStore:
    data = default_block(DataParams, "data", **block)
    download(data, folder / "raw", seed=1)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def test_the_store_describes_its_content(block: dict[str, Any], tmp_path: Path) -> None:
    store = make(block, tmp_path)
    assert read_json(tmp_path / "raw" / "source.json")["source"] == block["source"] == store.header.source
    assert list(store.manifest) == [*MANIFEST_COLUMNS, *store.header.groups]
    assert store.manifest["id"].is_unique
    assert (store.manifest["sha256"].str.len() == 64).all()
    assert store.manifest["sha256"].is_unique, "the sample must have no copies"
    assert set(store.manifest["label"]) == set(block["classes"])
    assert set(store.manifest["kind"]) <= {"real", "synthetic"}
    folds = {name for name in store.manifest["published_split"] if name.isdecimal()}
    assert set(store.manifest["published_split"]) - folds <= {"train", "val", "test", ""}
    assert set(store.manifest["parent"]) - {""} <= set(store.manifest["id"])
    assert store.header.counts == store.manifest["label"].value_counts().to_dict()
    assert all((store.header.licence, store.header.citation, store.header.verified))
    assert all(store.images[row].std() > 5 for row in range(len(store.images))), "an image is constant"
    assert (store.masks is None) or store.masks.shape == store.images.shape[:3]


def test_preparing_twice_gives_the_same_store(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("tested in test_phantom.py, because generating takes seconds")
    first, second = make(block, tmp_path / "a"), make(block, tmp_path / "b")
    assert first.header == second.header
    assert first.manifest.equals(second.manifest)
    assert np.array_equal(first.images, second.images)


def test_the_other_number_of_channels_works(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("tested in test_phantom.py, because generating takes seconds")
    store = make({**block, "channels": 4 - block.get("channels", 1)}, tmp_path)
    assert store.images.ndim == (4 if store.header.channels == 3 else 3)


def test_a_class_without_images_is_reported(block: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?i)Nobody: no image of this class|has the classes \["):
        make({**block, "classes": [*block["classes"], "Nobody"]}, tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_a_class_that_is_not_in_the_params_is_reported_or_left_out(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("its classes are those of the params")
    whole = make(block, tmp_path / "whole").header
    first, *others = block["classes"]
    labels = {**block.get("labels", {}), **dict.fromkeys(others, others[0])}  # merge all but the first
    block = {**block, "classes": ["Nobody", others[0]]}
    with pytest.raises(UserError, match=r"labels that are not a class|not in a folder that is named like a class"):
        make({**block, "labels": {k: v for k, v in labels.items() if v != first}}, tmp_path / "unknown")
    names = {k: None if v == first else v for k, v in labels.items()} | {first: None}
    with pytest.raises(UserError, match="Nobody: no image of this class"):
        make({**block, "labels": names}, tmp_path / "none")
    block["classes"], some = [others[0], "Somebody"], {**names, first: "Somebody"}
    found = make({**block, "labels": {k: v or "Somebody" for k, v in some.items()}}, tmp_path / "some").header
    assert found.counts == {others[0]: whole.images - whole.counts[first], "Somebody": whole.counts[first]}


def test_a_missing_path_is_reported(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] in ("phantom", "kaggle", "huggingface", "medmnist"):
        pytest.skip("data.path is no local file")
    with pytest.raises(UserError, match="no such file"):
        make({**block, "path": str(tmp_path / "none")}, tmp_path)
    assert not (tmp_path / "raw").exists()


def test_a_sha256_is_checked_or_refused(block: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.sha256"):
        make({**block, "sha256": "00"}, tmp_path)
    assert not (tmp_path / "raw").exists()


def test_every_source_has_both_functions() -> None:
    for name in SOURCES:
        source = get_source(name)
        assert source.download.__doc__
        assert source.listing.__doc__


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("figshare_tumor", "h5py", "formats"),
        ("nifti", "nibabel", "formats"),
        ("dicom", "pydicom", "formats"),
        ("kaggle", "kagglehub", "kaggle"),
    ],
)
def test_a_missing_library_is_reported_with_its_extra(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    base = {"ordered": True, "image_size": 16, "channels": 1, "on_bad_image": "skip", "source": name}
    block = {**base, **SAMPLES[name](tmp_path / "published", monkeypatch)}
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, SOURCES[name], raising=False)
    with pytest.raises(UserError, match=rf"{module} is not installed.*medrobust\[{extra}\]"):
        make(block, tmp_path)


@pytest.mark.parametrize(
    ("source", "file", "unit"), [("nifti", "sub-9.nii", "sub-9.nii"), ("dicom", "cases/three/IM0", "cases/three")]
)
def test_volumes_and_series_without_a_row_are_counted(
    source: str, file: str, unit: str, sample: Callable[[str], dict[str, Any]], make: Make
) -> None:
    block = sample(source)
    path = Path(block["path"]) / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert make(block).header.unused == [{"reason": "no row in the table", "count": 1, "first": [unit]}]


@pytest.mark.parametrize("source", ["archive", "nifti"])
def test_files_with_other_endings_are_counted(
    source: str, sample: Callable[[str], dict[str, Any]], make: Make
) -> None:
    block = sample(source)
    path = Path(block["path"])
    if path.is_dir():
        (path / "protocol.docx").write_bytes(b"x")
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("protocol.docx", b"x")
    unused = make(block).header.unused
    assert {"reason": "ending .docx", "count": 1, "first": ["protocol.docx"]} in unused
