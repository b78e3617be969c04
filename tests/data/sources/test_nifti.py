"""Volumes of every orientation give the same slices; range, step and window select and scale them."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.sources import VolumeParams
from medrobust.data.sources.volumes import selected_slices
from tests.data.sources.conftest import Make
from tests.data.sources.samples import volume

#: A volume in RAS+ (12 voxels to the right, 14 to the front, 10 up) whose axial slices differ.
VALUES = np.random.default_rng(5).integers(1, 1000, (12, 14, 10)).astype(np.int16)
WINDOW = (0.0, 1000.0)


def block(folder: Path, names: list[str], **changes: Any) -> dict[str, Any]:
    """The `data` block of a folder of volumes; labels alternate."""
    table = pd.DataFrame({"path": names, "label": [("CN", "AD")[n % 2] for n in range(len(names))]})
    table["patient"] = [f"p{n}" for n in range(len(names))]
    table.to_csv(folder / "labels.csv", index=False)
    return {"source": "nifti", "path": str(folder), "classes": ["CN", "AD"], "table": {"file": "labels.csv"},
            "window": WINDOW, **changes}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "volumes"
    path.mkdir()
    return path


def expected(number: int) -> np.ndarray:
    """The slice in radiological view: front up, the patient's right on the left."""
    plane = VALUES[::-1, ::-1, number].T
    pixels: np.ndarray = np.rint(np.clip(plane / 1000, 0, 1) * 255).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA", "IPL"])
def test_every_orientation_gives_the_same_slices(orientation: str, folder: Path, make: Make) -> None:
    for number in range(2):
        volume(folder / f"{number}.nii.gz", VALUES + number, orientation)
    store = make(block(folder, ["0.nii.gz", "1.nii.gz"]), image_size=14)
    assert store.manifest["slice"].tolist() == [*range(10), *range(10)]
    assert store.manifest["id"].tolist()[:2] == ["0.nii.gz#0000", "0.nii.gz#0001"]
    assert store.header.raw_bit_depth == 16
    from PIL import Image

    for number in range(10):
        stretched = Image.fromarray(expected(number)).resize((14, 14), Image.Resampling.BILINEAR)
        assert np.array_equal(store.images[number], np.asarray(stretched))


def test_scaled_and_float_volumes_keep_their_values(folder: Path, make: Make) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    scaled = nib.Nifti1Image(((VALUES - 100) // 10).astype(np.int16), affine)
    scaled.header.set_slope_inter(10, 100)
    nib.save(scaled, folder / "0.nii")
    nib.save(nib.Nifti2Image(VALUES.astype(np.float32), affine), folder / "1.nii")
    store = make(block(folder, ["0.nii", "1.nii"]), image_size=14)
    assert np.abs(store.images[:10].astype(int) - store.images[10:]).max() <= 3, "10 of 1000 are 2.6 of 255"


def test_without_a_window_percentiles_of_the_volume_are_used(folder: Path, make: Make) -> None:
    values = VALUES.astype(np.float32)
    values[0, 0, 0] = 1e6
    for number in range(2):
        volume(folder / f"{number}.nii", values)
    store = make(block(folder, ["0.nii", "1.nii"], window=None), image_size=14)
    assert store.images[:10].mean() == pytest.approx(127, abs=5), "one bright voxel does not darken the rest"


def test_range_and_step_select_slices() -> None:
    assert selected_slices(11, VolumeParams(range=(0.0, 1.0), step=1)) == list(range(11))
    assert selected_slices(11, VolumeParams(range=(0.2, 0.8), step=3)) == [2, 5, 8]
    assert selected_slices(1, VolumeParams(range=(0.0, 1.0), step=1)) == [0]
    with pytest.raises(ValueError, match="none of its 2 slices"):
        selected_slices(2, VolumeParams(range=(0.4, 0.6), step=1))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no orientation", r"its header has no orientation"),
        ("colours", r"its voxels are not numbers"),
        ("time", r"its shape \(12, 14, 10, 2\) is not that of a single volume"),
        ("text", r"truncated or not a volume"),
        ("half a header", r"truncated or not a volume"),
        ("no gzip", r"truncated or not a volume"),
    ],
)
def test_an_unusable_header_is_reported(fault: str, message: str, folder: Path, make: Make) -> None:
    for name in ("0.nii", "1.nii", "good.nii", "bad.nii", "bad.nii.gz"):
        volume(folder / name, VALUES, code=0 if name.startswith("bad") and fault == "no orientation" else 1)
    bad = "bad.nii.gz" if fault == "no gzip" else "bad.nii"
    if fault == "time":
        nib.save(nib.Nifti1Image(np.stack([VALUES, VALUES], 3), np.eye(4)), folder / bad)
    if fault == "colours":
        colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(colours, np.eye(4)), folder / bad)
    content = {
        "text": b"I am a text" * 50,
        "half a header": (folder / bad).read_bytes()[:200],
        "no gzip": b"x" * 900,
    }
    if fault in content:
        (folder / bad).write_bytes(content[fault])
    with pytest.raises(UserError, match=rf"{bad}: is not usable \({message}"):
        make(block(folder, ["0.nii", "1.nii", bad]))
    store = make(block(folder, ["0.nii", "1.nii", bad]), on_bad_image="skip")
    assert [row["id"] for row in store.header.skipped] == [bad]
    assert len(store.images) == 20


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_volume_is_reported(packed: bool, folder: Path, make: Make) -> None:
    for number in range(3):
        volume(folder / f"{number}.nii", np.tile(VALUES, (1, 1, 9)))
    content = (folder / "2.nii").read_bytes()
    name = "2.nii.gz" if packed else "2.nii"
    (folder / name).write_bytes(
        gzip.compress(content)[: len(gzip.compress(content)) // 2] if packed else content[: len(content) // 2]
    )
    names = ["0.nii", "1.nii", name]
    with pytest.raises(UserError, match=rf"{name}.*\(.*truncated"):
        make(block(folder, names))
    store = make(block(folder, names), on_bad_image="skip")
    assert {row["id"].split("#")[0] for row in store.header.skipped} == {name}
    assert (store.manifest["id"].str.startswith(("0.nii", "1.nii"))).sum() == 180


def test_a_volume_of_one_intensity_needs_a_window(folder: Path, make: Make) -> None:
    for number in range(2):
        volume(folder / f"{number}.nii", np.full_like(VALUES, 7))
    with pytest.raises(UserError, match="all its voxels have the same value"):
        make(block(folder, ["0.nii", "1.nii"], window=None))


def test_a_missing_table_is_reported(folder: Path, make: Make) -> None:
    volume(folder / "0.nii", VALUES)
    with pytest.raises(UserError, match=r"data\.table\.file: missing"):
        make({**block(folder, ["0.nii"]), "table": None})
