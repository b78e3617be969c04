"""What every source has to keep: it is tested by standing in the registry (and having a sample)."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.base import SOURCES, get_source
from medrobust.data.store import MANIFEST, ImageStore
from tests.data.sources.samples import SAMPLES
from tests.params import default_block


@pytest.fixture(params=SOURCES)
def block(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The `data` block of a sample of each source."""
    name = request.param
    assert name in SAMPLES, f"write a sample of {name} in the published format into samples.py"
    (tmp_path / "published").mkdir()
    base = {"ordered": True, "image_size": 16, "channels": 1, "on_bad_image": "fail"}
    return {**base, "source": name, **SAMPLES[name](tmp_path / "published", monkeypatch)}


def make(block: dict[str, Any], folder: Path) -> ImageStore:
    data = default_block(DataParams, "data", **block)
    download(data, folder / "raw", seed=1)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def test_the_store_says_what_it_holds(block: dict[str, Any], tmp_path: Path) -> None:
    store = make(block, tmp_path)
    assert read_json(tmp_path / "raw" / "source.json")["source"] == block["source"] == store.header.source
    assert list(store.manifest) == MANIFEST
    assert store.manifest["id"].is_unique
    assert (store.manifest["sha256"].str.len() == 64).all()
    assert store.manifest["sha256"].is_unique, "the sample has no copies"
    assert set(store.manifest["label"]) == set(block["classes"])
    assert set(store.manifest["kind"]) <= {"real", "synthetic"}
    assert set(store.manifest["published_split"]) <= {"train", "val", "test", ""}
    assert set(store.manifest["parent"]) - {""} <= set(store.manifest["id"])
    assert store.header.counts == store.manifest["label"].value_counts().to_dict()
    assert all((store.header.licence, store.header.citation, store.header.verified))
    assert all(store.images[row].std() > 5 for row in range(len(store.images))), "a picture is flat"
    assert (store.masks is None) or store.masks.shape == store.images.shape[:3]


def test_twice_gives_the_same(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("test_phantom.py has it; generating takes seconds")
    first, second = make(block, tmp_path / "a"), make(block, tmp_path / "b")
    assert first.header == second.header
    assert first.manifest.equals(second.manifest)
    assert np.array_equal(first.images, second.images)


def test_the_other_number_of_channels_works(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("test_phantom.py has it; generating takes seconds")
    store = make({**block, "channels": 4 - block.get("channels", 1)}, tmp_path)
    assert store.images.ndim == (4 if store.header.channels == 3 else 3)


def test_a_class_that_the_data_lack_is_named(block: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?i)Nobody: no image of this class|names \["):
        make({**block, "classes": [*block["classes"], "Nobody"]}, tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_a_class_that_the_params_lack_is_named_or_left_out(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] == "phantom":
        pytest.skip("its classes are those of the params")
    whole = make(block, tmp_path / "whole").header
    first, *others = block["classes"]
    labels = {**block.get("labels", {}), **dict.fromkeys(others, others[0])}  # all but the first are one class
    block = {**block, "classes": ["Nobody", others[0]]}
    with pytest.raises(UserError, match=r"labels that are no class|no folder that is called like a class"):
        make({**block, "labels": {k: v for k, v in labels.items() if v != first}}, tmp_path / "unknown")
    names = {k: None if v == first else v for k, v in labels.items()} | {first: None}
    with pytest.raises(UserError, match="Nobody: no image of this class"):
        make({**block, "labels": names}, tmp_path / "none")
    block["classes"], some = [others[0], "Somebody"], {**names, first: "Somebody"}
    found = make({**block, "labels": {k: v or "Somebody" for k, v in some.items()}}, tmp_path / "some").header
    assert found.counts == {others[0]: whole.images - whole.counts[first], "Somebody": whole.counts[first]}


def test_what_is_not_there_is_named(block: dict[str, Any], tmp_path: Path) -> None:
    if block["source"] in ("phantom", "kaggle", "huggingface", "medmnist"):
        pytest.skip("data.path is no local file")
    with pytest.raises(UserError, match="no such file"):
        make({**block, "path": str(tmp_path / "none")}, tmp_path)
    assert not (tmp_path / "raw").exists()


def test_a_hash_is_checked_or_refused(block: dict[str, Any], tmp_path: Path) -> None:
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
    [("figshare_tumor", "h5py", "formats"), ("nifti", "nibabel", "formats"), ("dicom", "pydicom", "formats")],
)
def test_a_missing_library_names_its_extra(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    base = {"ordered": True, "image_size": 16, "channels": 1, "on_bad_image": "skip", "source": name}
    block = {**base, **SAMPLES[name](tmp_path / "published", monkeypatch)}
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module} is not installed.*medrobust\[{extra}\]"):
        make(block, tmp_path)
