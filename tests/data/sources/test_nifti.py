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
    assert selected_slices(11, VolumeParams(range=(0.0, 1.0), step=1, frame=None)) == list(range(11))
    assert selected_slices(11, VolumeParams(range=(0.2, 0.8), step=3, frame=None)) == [2, 5, 8]
    assert selected_slices(1, VolumeParams(range=(0.0, 1.0), step=1, frame=None)) == [0]
    with pytest.raises(ValueError, match="none of its 2 slices"):
        selected_slices(2, VolumeParams(range=(0.4, 0.6), step=1, frame=None))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no orientation", r"its header has no orientation"),
        ("colours", r"its voxels are not numbers"),
        ("time", r"it has 2 frames; set data\.volume\.frame to the number of one, from 0"),
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


def saved(folder: Path, name: str, values: np.ndarray = VALUES) -> None:
    """Save a volume by the format that the name stands for; files of a NIfTI-2 pair start with `2`."""
    suffix = "".join(Path(name).suffixes).lower()
    kind = nib.MGHImage if suffix in (".mgz", ".mgh") else nib.Nifti1Image
    if suffix.startswith(".img"):
        kind = nib.Nifti2Pair if name.startswith("2") else nib.Nifti1Pair
    image = kind(values.astype(np.int32), np.eye(4))
    if kind is not nib.MGHImage:
        image.set_sform(np.eye(4), 1)
    nib.save(image, folder / name.lower())
    for suffix in (".hdr", ".img", ".nii", ".mgh"):  # under the name in capitals
        lower = folder / name.lower().replace(".img", suffix)
        if lower.exists():
            lower.rename(folder / name.replace(".img", suffix).replace(".IMG", suffix.upper()))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("a.NII", "a.NII"), ("a.NII.GZ", "a.NII.GZ"), ("a.mgz", "a.mgz"), ("a.MGH", "a"), ("a.img", "a.img"),
        ("a.img", "a.hdr"), ("a.img", "a"), ("2a.img", "2a.hdr"), ("a.img.gz", "a.hdr.gz"), ("A.IMG", "A.HDR"),
        ("b.c.mgz", "b.c"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_slices(name: str, row: str, folder: Path, make: Make) -> None:
    saved(folder, name)
    volume(folder / "other.nii", VALUES)
    store = make(block(folder, [row, "other.nii"]), image_size=14)
    assert np.array_equal(store.images[:10], store.images[10:])
    assert store.manifest["id"].iloc[0] == f"{name}#0000"


@pytest.mark.parametrize(
    ("name", "other"), [("a.nii", "a.nii.gz"), ("a.nii.gz", "a.nii"), ("a.mgh", "a.mgz"), ("a.mgz", "a.mgh")]
)
def test_gzip_is_read_from_the_content(name: str, other: str, folder: Path, make: Make) -> None:
    saved(folder, name)
    (folder / name).rename(folder / other)
    volume(folder / "other.nii", VALUES)
    store = make(block(folder, [other, "other.nii"]), image_size=14)
    assert np.array_equal(store.images[:10], store.images[10:])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("analyze", "it is an Analyze file, which has no orientation; convert it to NIfTI"),
        ("analyze.nii", "it is an Analyze file"),
        ("no header", r"it has no \.hdr file beside it"),
        ("half a header", r"truncated or not a volume"),
        ("empty header", r"truncated or not a volume"),
        ("no voxels", r"truncated or not a volume"),
        ("mgh", r"its header has no orientation \(goodRASFlag is 0\)"),
        ("truncated mgz", r"truncated or not a volume"),
        ("damaged gzip", r"truncated or not a volume"),
        ("flat", r"its shape \(12, 14\) is not that of a volume"),
    ],
)
def test_what_is_wrong_with_a_format_is_said(fault: str, message: str, folder: Path, make: Make) -> None:
    bad = {"analyze.nii": "bad.nii", "mgh": "bad.mgh", "truncated mgz": "bad.mgz", "damaged gzip": "bad.nii.gz",
           "flat": "bad.nii"}.get(fault, "bad.img")  # fmt: skip
    saved(folder, bad, VALUES[..., 0] if fault == "flat" else VALUES)
    path, header = folder / bad, folder / "bad.hdr"
    if fault == "analyze":
        nib.save(nib.Spm99AnalyzeImage(VALUES, np.eye(4)), path)
    if fault == "analyze.nii":
        content = bytearray(path.read_bytes())
        content[344:348] = bytes(4)
        path.write_bytes(content)
    if fault == "no header":
        header.unlink()
    if fault == "mgh":
        content = bytearray(path.read_bytes())
        content[28:30] = bytes(2)
        path.write_bytes(content)
    kept = {"half a header": (header, 200), "empty header": (header, 0), "no voxels": (path, 0),
            "truncated mgz": (path, 300), "damaged gzip": (path, 40)}  # fmt: skip
    if fault in kept:
        part, size = kept[fault]
        part.write_bytes(part.read_bytes()[:size])
    for name in ("0.nii", "1.nii"):
        volume(folder / name, VALUES)
    rows = block(folder, ["0.nii", "1.nii", bad], window=None)
    with pytest.raises(UserError, match=rf"{bad}(#0000)?: (is not usable|cannot be decoded) \({message}"):
        make(rows)
    assert len(make(rows, on_bad_image="skip").images) == 20


@pytest.mark.parametrize("share", [1, 6])
@pytest.mark.parametrize(("odd", "level"), [(np.inf, 255), (-np.inf, 0), (np.nan, 0)])
def test_voxels_that_are_not_finite_do_not_move_the_window(
    share: int, odd: float, level: int, folder: Path, make: Make
) -> None:
    values = VALUES.astype(np.float32)
    volume(folder / "0.nii", values)
    values[:share] = odd
    volume(folder / "1.nii", values)
    store = make(block(folder, ["0.nii", "1.nii"], window=None), image_size=14)
    whole, part = (store.images[rows].astype(int) for rows in (slice(10), slice(10, 20)))
    assert np.abs(whole[:, :, :5] - part[:, :, :5]).max() <= 3, "the left half, which is stored last"
    assert (part[:, :, -1] == level).all(), "the first voxels are on the right"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "none of its voxels is a finite number"),
        (np.inf, "none of its voxels is a finite number"),
        (0.0, r"all its voxels have the same value \(0\); set data\.window"),
        (-7.5, r"all its voxels have the same value \(-7\.5\)"),
        (1.0, r"99 % of its voxels have the same value \(1\)"),
    ],
)
def test_voxels_without_a_range_are_reported(value: float, message: str, folder: Path, make: Make) -> None:
    values = np.full(VALUES.shape, value, dtype=np.float32)
    if value == 1:
        values[0, 0, 0] = 5
    for number in range(2):
        volume(folder / f"{number}.nii", values)
    with pytest.raises(UserError, match=rf"0\.nii#0000: cannot be decoded \({message}"):
        make(block(folder, ["0.nii", "1.nii"], window=None))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
@pytest.mark.parametrize("window", [WINDOW, None])
def test_one_of_several_frames_is_chosen(kind: Any, window: Any, folder: Path, make: Make) -> None:
    name = "0.mgz" if kind is nib.MGHImage else "0.nii.gz"
    shape = (*VALUES.shape, 3) if kind is nib.MGHImage else (*VALUES.shape, 1, 3)
    values = np.zeros(shape, dtype=np.int32)
    values[..., 2] = VALUES if kind is nib.MGHImage else VALUES[..., None]
    nib.save(kind(values, np.diag([1.0, 1.0, 1.0, 1.0])), folder / name)
    volume(folder / "1.nii", VALUES)
    rows = block(folder, [name, "1.nii"], window=window)
    with pytest.raises(UserError, match=rf"{name}: is not usable \(it has 3 frames; set data\.volume\.frame"):
        make(rows)
    shares = {"range": [0.0, 1.0], "step": 1}
    with pytest.raises(UserError, match=r"it has 3 frames, numbered from 0, and data\.volume\.frame is 3"):
        make(rows, volume={**shares, "frame": 3})
    store = make(rows, volume={**shares, "frame": 2}, image_size=14)
    assert np.array_equal(store.images[:10], store.images[10:]), "a file with one frame needs no choice"


def test_a_missing_table_is_reported(folder: Path, make: Make) -> None:
    volume(folder / "0.nii", VALUES)
    with pytest.raises(UserError, match=r"data\.table\.file: missing"):
        make({**block(folder, ["0.nii"]), "table": None})
