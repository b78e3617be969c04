"""MATLAB files as published: correctly oriented, with their patients and masks."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from medrobust.core.errors import UserError
from medrobust.data.sources import figshare_tumor
from tests.data.sources.conftest import Make
from tests.data.sources.samples import matlab, tumour

Sample = Callable[[str], dict[str, Any]]


def test_images_masks_and_patients_are_read(sample: Sample, make: Make) -> None:
    store = make(sample("figshare_tumor"))
    assert store.manifest["patient"].tolist() == [f"MR0{number}A" for number in range(1, 7)]
    assert store.manifest["label"].tolist() == ["glioma", "pituitary", "meningioma"] * 2
    assert store.header.raw_bit_depth == 16
    assert store.masks is not None
    for row in range(6):
        image, mask = tumour(row + 1)
        expected = np.rint((image - image.min()) / (image.max() - image.min()) * 255)
        assert np.array_equal(store.images[row], expected), "scaled from its minimum to its maximum"
        assert np.array_equal(store.masks[row], mask)


def test_the_mask_is_resized_with_the_image(sample: Sample, make: Make) -> None:
    store = make(sample("figshare_tumor"), image_size=12)
    assert store.masks is not None
    assert np.array_equal(store.masks[0], tumour(1)[1][::2, ::2])


def test_masks_of_skipped_images_are_left_out(sample: Sample, make: Make) -> None:
    block = sample("figshare_tumor")
    with zipfile.ZipFile(block["path"], "a") as outer:
        flat, mask = np.full((24, 24), 7), np.zeros((24, 24))
        outer.writestr("0.mat", matlab(1, "X", flat, mask))
        outer.writestr("00.mat", b"no MATLAB")
    with pytest.raises(UserError, match=r"00\.mat: cannot be read \(not a MATLAB 7.3 file with cjdata"):
        make(block)
    store = make(block, on_bad_image="skip")
    assert [row["id"] for row in store.header.skipped] == ["00.mat", "0.mat"]
    assert "or is constant" in store.header.skipped[1]["reason"]
    assert store.masks is not None
    assert len(store.images) == len(store.masks) == 6
    assert np.array_equal(store.masks[3], tumour(4)[1])


def test_an_unknown_label_is_reported(sample: Sample, make: Make) -> None:
    block = sample("figshare_tumor")
    with zipfile.ZipFile(block["path"], "a") as outer:
        outer.writestr("7.mat", matlab(4, "X", *tumour(7)))
    with pytest.raises(UserError, match=r"7\.mat.*cjdata\.label is 4, but must be 1 to 3"):
        make(block)


def test_published_folds_belong_to_the_numbers_of_the_files(sample: Sample, make: Make, tmp_path: Path) -> None:
    block = sample("figshare_tumor")
    assert make(block).manifest["published_split"].tolist() == ["1", "2", "3", "1", "2", "3"]
    older = io.BytesIO()
    savemat(older, {"cvind": np.array([[3, 3, 1, 2, 2, 1]], dtype=np.uint8)})
    for content, expected in ((older.getvalue(), list("331221")), (b"folds", [""] * 6), (None, [""] * 6)):
        with zipfile.ZipFile(block["path"]) as old, zipfile.ZipFile(tmp_path / "other.zip", "w") as new:
            for name in old.namelist():
                if name != "cvind.mat":
                    new.writestr(name, old.read(name))
            if content is not None:
                new.writestr("cvind.mat", content)
        store = make({**block, "path": str(tmp_path / "other.zip")})
        assert store.manifest["published_split"].tolist() == expected


def test_a_folder_of_files_or_zips_works_too(sample: Sample, make: Make, tmp_path: Path) -> None:
    block = sample("figshare_tumor")
    with zipfile.ZipFile(block["path"]) as outer:
        outer.extractall(tmp_path / "folder")
    assert len(make({**block, "path": str(tmp_path / "folder")}).images) == 6


def test_damaged_and_duplicate_zips_are_reported(sample: Sample, make: Make, tmp_path: Path) -> None:
    block = sample("figshare_tumor")
    with zipfile.ZipFile(block["path"]) as outer:
        inner = outer.read("brainTumorDataPublic_1-3.zip")
    with zipfile.ZipFile(tmp_path / "half.zip", "w") as outer:
        outer.writestr("brainTumorDataPublic_1-3.zip", inner[: len(inner) // 2])
    with pytest.raises(UserError, match=r"brainTumorDataPublic_1-3\.zip: truncated or not an archive"):
        make({**block, "path": str(tmp_path / "half.zip")})
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as outer:
        outer.writestr("a.zip", inner)
        outer.writestr("b.zip", inner)
    with pytest.raises(UserError, match=r"1\.mat: is in two of the zips"):
        make({**block, "path": str(tmp_path / "twice.zip")})
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as outer:
        outer.writestr("README.txt", b"x")
    with pytest.raises(UserError, match="contains no MATLAB file"):
        make({**block, "path": str(tmp_path / "none.zip")})


def test_the_complete_release_is_recognised_by_counts_and_patients(
    sample: Sample, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = sample("figshare_tumor")
    header = make(block).header
    assert header.verified == header.doubt == "not the complete release (6 of 3064 slices)"
    assert header.licence == "unknown"
    monkeypatch.setattr(figshare_tumor, "PUBLISHED_COUNTS", {"glioma": 2, "pituitary": 2, "meningioma": 2})
    monkeypatch.setattr(figshare_tumor, "PUBLISHED_PATIENTS", 6)
    header = make(block).header
    assert header.verified == "class counts and 6 patients of the complete release"
    assert (header.doubt, header.licence) == ("", "CC BY 4.0")


def test_the_published_zips_are_downloaded_with_their_md5(
    sample: Sample, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = sample("figshare_tumor")
    with zipfile.ZipFile(block["path"]) as outer:
        outer.extractall(tmp_path / "site")
    files = [
        {
            "name": path.name,
            "download_url": path.as_uri(),
            "computed_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        }
        for path in sorted((tmp_path / "site").iterdir())
    ]

    class Response:
        def raise_for_status(self) -> None: ...

        def json(self) -> Any:
            return files

    downloaded = []

    def download(url: str, target: Path, md5: str) -> None:
        downloaded.append((target.name, md5))
        target.write_bytes(Path(url.removeprefix("file://")).read_bytes())

    monkeypatch.setattr("requests.get", lambda url, timeout: Response())
    monkeypatch.setattr(figshare_tumor, "download_file", download)
    store = make({**block, "path": None})
    assert downloaded == [(file["name"], file["computed_md5"]) for file in files if file["name"].endswith(".zip")]
    assert store.header.verified.endswith("md5 of each zip")


def test_an_unreachable_figshare_is_reported(sample: Sample, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figshare_tumor, "FILES_URL", "http://127.0.0.1:9/files")
    with pytest.raises(UserError, match=r"cannot be reached.*Download the zips in a browser"):
        make({**sample("figshare_tumor"), "path": None})
