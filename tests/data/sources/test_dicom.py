"""DICOM series: slices in order of position, rescaled and windowed as in the standard."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams, SplitParams
from medrobust.data.pseudonyms import KEY_VARIABLE, pseudonyms
from medrobust.data.sources import dicom
from medrobust.data.sources.files import Files
from medrobust.data.split import make_split
from tests.data.sources.conftest import Make
from tests.data.sources.dicom_series import HEIGHTS, change_tags, values
from tests.data.sources.samples import slice_file
from tests.params import default_block


def test_slices_are_in_order_and_windowed_as_pydicom_does(dicom_block: dict[str, Any], make: Make) -> None:
    store = make(dicom_block)
    assert store.manifest["slice"].tolist() == [0, 1, 2, 3] * 2
    assert store.header.raw_bit_depth == 12
    for row, index in enumerate(np.argsort(HEIGHTS)):
        dataset = pydicom.dcmread(Path(dicom_block["path"]) / "one" / f"IM{index}.dcm")
        hounsfield = dataset.pixel_array * 1.0 - 1024
        shown = apply_voi_lut(hounsfield, dataset)  # the standard's formula, over the range of the stored bits
        shown = (shown - shown.min()) / (shown.max() - shown.min()) * 255
        assert np.abs(store.images[row] - shown).max() <= 1


def test_a_window_of_the_params_comes_first(dicom_block: dict[str, Any], make: Make) -> None:
    store = make({**dicom_block, "window": [-1000, 1500]})
    first = int(np.argsort(HEIGHTS)[0])
    assert np.array_equal(store.images[0], np.rint(np.clip((values(first) - 24) / 2500, 0, 1) * 255))


def test_patients_are_pseudonyms(dicom_block: dict[str, Any], make: Make, tmp_path: Path) -> None:
    store = make(dicom_block)
    assert store.header.patients == 2
    names = ["Doe^one", "Doe^two"]
    assert store.manifest["patient"].tolist() == pseudonyms([name for name in names for _ in HEIGHTS])
    text = (tmp_path / "prepared" / "manifest.csv").read_text()
    assert not any(hashlib.sha256(name.encode()).hexdigest()[:8] in text for name in names)
    assert "Doe" not in text


@pytest.mark.parametrize("strategy", ["patient", "kfold"])
def test_another_secret_gives_other_names_and_the_same_split(
    strategy: str, dicom_block: dict[str, Any], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"case {number}" for number in range(24)]
    for number, name in enumerate(names):
        path = tmp_path / "series" / name / "1.dcm"
        slice_file(path, values(number), 0.0, f"1.2.{number}", PatientID=f"{number // 2 * 7919 % 1000:03d}")
    table = pd.DataFrame(
        {"path": names, "label": [("benign", "malignant")[number // 2 % 2] for number in range(24)]}
    )
    table.to_csv(tmp_path / "labels.csv", index=False)
    results = []
    for secret in ("a secret of one clone", "the secret of another"):
        monkeypatch.setenv(KEY_VARIABLE, secret)
        store = make(dicom_block)
        split = default_block(SplitParams, "split", strategy=strategy)
        results.append((store, make_split(store.manifest, store.header, split, seed=1)))
    (first, one), (second, other) = results
    assert not set(first.manifest["patient"]) & set(second.manifest["patient"])
    assert one.equals(other)
    assert first.header == second.header
    assert np.array_equal(first.images, second.images)


def test_a_patient_that_no_header_names_is_unknown(dicom_block: dict[str, Any], make: Make) -> None:
    for path in (Path(dicom_block["path"]) / "one").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = " "
        dataset.save_as(path)
    assert make(dicom_block).manifest["patient"].tolist() == [""] * 4 + pseudonyms(["Doe^two"]) * 4


def test_monochrome1_is_inverted(dicom_block: dict[str, Any], make: Make) -> None:
    plain = make(dicom_block).images[0].copy()
    change_tags(dicom_block, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(make(dicom_block).images[0], 255 - plain)


def test_colour_is_kept(dicom_block: dict[str, Any], make: Make) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    change_tags(dicom_block, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0,
                BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=rgb.tobytes())  # fmt: skip
    assert np.array_equal(make(dicom_block, channels=3).images[0], rgb)


def test_one_slice_needs_no_position(dicom_block: dict[str, Any], make: Make) -> None:
    for index in (0, 2, 3):
        (Path(dicom_block["path"]) / "one" / f"IM{index}.dcm").unlink()
    change_tags(dicom_block, ImagePositionPatient=None, ImageOrientationPatient=None)
    assert make(dicom_block).header.counts == {"benign": 1, "malignant": 4}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"SeriesInstanceUID": "1.2.9"}, "the folder contains several series; give each a folder of its own"),
        ({"ImagePositionPatient": None}, r"IM1\.dcm has no ImagePositionPatient"),
        (
            {"ImagePositionPatient": [0, 0, 5.0]},
            "two of its slices are at the same position; keep one time point in a folder",
        ),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "its slices are in different planes"),
        ({"ImageOrientationPatient": None}, "its slices are in different planes, or their headers have no plane"),
    ],
)
def test_a_series_without_a_clear_order_is_reported(
    tags: dict[str, Any], message: str, dicom_block: dict[str, Any], make: Make
) -> None:
    change_tags(dicom_block, **tags)
    with pytest.raises(UserError, match=rf"one: is not usable \(.*{message}"):
        make(dicom_block)
    with pytest.raises(UserError, match="benign: no image of this class"):
        make(dicom_block, on_bad_image="skip")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"WindowCenter": None}, r"its header has no window; set data\.window"),
        ({"WindowWidth": 1}, r"the window in its header has centre 40 and width 1"),
        ({"NumberOfFrames": 2, "PixelData": bytes(1024)}, "2 frames"),
        ({"PixelData": bytes(100)}, "[Pp]ixel [Dd]ata"),
        ({"PixelData": None}, "its pixels cannot be decoded"),
        ({"BitsAllocated": None}, "(BitsAllocated|[Bb]its [Aa]llocated)"),
    ],
)
def test_a_slice_that_cannot_be_decoded_is_a_bad_image(
    tags: dict[str, Any], message: str, dicom_block: dict[str, Any], make: Make
) -> None:
    change_tags(dicom_block, **tags)
    with pytest.raises(UserError, match=rf"one#0000: cannot be decoded \(.*{message}"):
        make(dicom_block)
    store = make(dicom_block, on_bad_image="skip")
    assert [row["id"] for row in store.header.skipped] == ["one#0000"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("IM1.dcm", b""), ("IM1.dcm", b"I am a text" * 40), ("IM1.dcm", bytes(5000)), ("IM8.IMA", b"text"),
        ("IM8", b""), ("IM8", bytes(5000)), ("IM8", b"\x08\x00\x05\x00" + bytes(100)),
        ("IM8", bytes(128) + b"DICM" + bytes(50)),
    ],
)  # fmt: skip
def test_a_damaged_slice_is_not_a_foreign_file(
    name: str, content: bytes, dicom_block: dict[str, Any], make: Make
) -> None:
    (Path(dicom_block["path"]) / "one" / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is truncated or not a DICOM file"):
        make(dicom_block)


def test_a_missing_folder_is_reported(dicom_block: dict[str, Any], make: Make, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["one", "three"], "label": ["benign", "malignant"]}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    with pytest.raises(UserError, match=r"labels\.csv, line 3: 'three' is not a file of the data"):
        make(dicom_block)


@pytest.mark.filterwarnings("ignore")  # pydicom warns about damaged files
def test_damaged_bytes_give_an_image_or_a_reason(dicom_block: dict[str, Any], tmp_path: Path) -> None:
    content = (Path(dicom_block["path"]) / "one" / "IM0.dcm").read_bytes()
    data, rng = default_block(DataParams, "data"), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(0, 900, 3):
            damaged[position] = rng.integers(0, 256)
        (tmp_path / "a.dcm").write_bytes(damaged[: rng.integers(1, len(damaged) + 1)])
        files = Files(tmp_path, ["a.dcm"], lambda name: (tmp_path / name).open("rb"))
        with contextlib.suppress(ValueError):
            series = dicom._in_order(files, ["a.dcm"])
            assert dicom._read(files, {"one": series}, data, "one#0000").pixels.dtype == np.uint8
