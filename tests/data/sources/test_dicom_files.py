"""Which files of a folder are a DICOM series, and files that are a patient each."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import uid

from medrobust.core.errors import UserError
from medrobust.data.pseudonyms import pseudonyms
from tests.data.sources.conftest import Make
from tests.data.sources.dicom_series import change_tags, values
from tests.data.sources.samples import slice_file

FOREIGN: dict[str, bytes] = {
    "069.xml": b"<?xml version='1.0'?><x/>", "LICENSE": b"terms of use", "Thumbs.db": b"\xd0\xcf\x11\xe0" * 300,
    "preview.jpg": b"\xff\xd8\xff\xe0" * 99, "mask.nii.gz": b"\x1f\x8b" * 99, "archive.zip": b"PK\x03\x04" * 99,
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_a_foreign_file_is_left_out_and_counted(
    name: str, on_bad_image: str, dicom_block: dict[str, Any], make: Make
) -> None:
    whole = make(dicom_block)
    (Path(dicom_block["path"]) / "one" / name).write_bytes(FOREIGN[name])
    store = make(dicom_block, on_bad_image=on_bad_image)
    assert np.array_equal(store.images, whole.images)
    assert store.header.skipped == [{"id": f"one/{name}", "reason": "not a DICOM file, left out of its series"}]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"SOPClassUID": uid.SegmentationStorage}, "a Segmentation Storage"),
        ({"SOPClassUID": uid.RTDoseStorage}, "a RT Dose Storage"),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, "a Secondary Capture Image Storage"),
        ({"SOPClassUID": uid.EnhancedSRStorage, "Rows": None}, "no image but Enhanced SR Storage"),
        (
            {"SOPClassUID": uid.GrayscaleSoftcopyPresentationStateStorage, "Rows": None},
            "no image but Grayscale Soft",
        ),
        ({"SOPClassUID": uid.EncapsulatedPDFStorage, "Rows": None}, "no image but Encapsulated PDF"),
    ],
)
def test_what_accompanies_a_series_is_left_out(
    tags: dict[str, Any], reason: str, dicom_block: dict[str, Any], make: Make
) -> None:
    whole = make(dicom_block)
    tags = {"SeriesInstanceUID": "1.2.99", "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], **tags}
    path = Path(dicom_block["path"]) / "one" / "IM9.dcm"
    slice_file(path, values(99), 0.0, "1.2.99", **{name: tag for name, tag in tags.items() if tag is not None})
    if "Rows" in tags:
        change_tags(dicom_block, path, Rows=None)
    store = make(dicom_block)
    assert np.array_equal(store.images, whole.images)
    assert [row["id"] for row in store.header.skipped] == ["one/IM9.dcm"]
    assert store.header.skipped[0]["reason"].startswith(reason)


@pytest.mark.parametrize(
    "tags",
    [{"ImageType": ["DERIVED", "PRIMARY", "LOCALIZER"]}, {"SOPClassUID": uid.SecondaryCaptureImageStorage}],
)
def test_companions_alone_are_the_series(tags: dict[str, Any], dicom_block: dict[str, Any], make: Make) -> None:
    for path in (Path(dicom_block["path"]) / "one").iterdir():
        change_tags(dicom_block, path, **tags)
    store = make(dicom_block)
    assert store.header.counts == {"benign": 4, "malignant": 4}
    assert not store.header.skipped


def test_a_slice_that_is_damaged_in_its_archive_is_reported(dicom_block: dict[str, Any], make: Make) -> None:
    path = Path(dicom_block["path"]).with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(Path(dicom_block["path"]).rglob("IM*")):
            archive.write(file, file.relative_to(dicom_block["path"]))
        archive.writestr("one/LICENSE", b"terms of use, without end. " * 900)
    content = path.read_bytes()
    place = content.index(b"one/LICENSE") + 20
    path.write_bytes(content[:place] + bytes(40) + content[place + 40 :])
    with pytest.raises(UserError, match=r"one: is not usable \(one/LICENSE is truncated or not a DICOM file"):
        make({**dicom_block, "path": str(path)})


def test_a_folder_without_an_image_is_reported(dicom_block: dict[str, Any], make: Make) -> None:
    for path in (Path(dicom_block["path"]) / "one").iterdir():
        path.rename(path.with_suffix(".xml"))
        path.with_suffix(".xml").write_bytes(b"<x/>")
    with pytest.raises(
        UserError, match=r"one: is not usable \(one/IM0.xml is not a DICOM file, and none is an im"
    ):
        make(dicom_block)


@pytest.mark.parametrize("kind", ["empty", "no position", "foreign", "zip"])
def test_the_header_of_a_run_does_not_name_the_files_of_a_bad_series(
    kind: str, dicom_block: dict[str, Any], make: Make
) -> None:
    """Reports show the reasons, and the name of a file may be that of a patient."""
    folder = Path(dicom_block["path"])
    for number in range(2):
        slice_file(folder / "three" / f"DOE_JANE_{number}", values(number), number, "1.2.3")
    bad = folder / "three" / "DOE_JANE_0"
    if kind == "empty":
        bad.write_bytes(b"")
    elif kind == "no position":
        change_tags(dicom_block, bad, ImagePositionPatient=None)
    elif kind == "foreign":
        for path in bad.parent.iterdir():
            path.write_bytes(b"text")
    table = pd.DataFrame({"path": ["one", "two", "three"], "label": ["benign", "malignant", "benign"]})
    table.to_csv(folder.parent / "labels.csv", index=False)
    if kind == "zip":
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for file in sorted(folder.rglob("[ID]*")):
                archive.write(file, file.relative_to(folder))
        content = bytearray(folder.with_suffix(".zip").read_bytes())
        place = content.index(b"DOE_JANE_0")
        content[place + 1400] ^= 1
        folder.with_suffix(".zip").write_bytes(content)
        dicom_block["path"] += ".zip"
    skipped = make(dicom_block, on_bad_image="skip").header.skipped
    assert {row["id"].partition("#")[0] for row in skipped} == {"three"}
    assert not any("DOE" in row["reason"] for row in skipped), skipped


def test_slices_of_two_patients_are_not_a_series(dicom_block: dict[str, Any], make: Make) -> None:
    change_tags(dicom_block, PatientID="Roe^Mary")
    with pytest.raises(
        UserError, match=r"one: is not usable \(the folder contains several patients; give each a folder"
    ):
        make(dicom_block)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ""])
@pytest.mark.parametrize("row", ["stem", "name", "path"])
def test_a_file_may_be_a_patient(
    nested: bool, suffix: str, row: str, dicom_block: dict[str, Any], make: Make
) -> None:
    """As RSNA and VinDr publish them: no series of slices, no position, the patient in the table or the header."""
    folder = Path(dicom_block["path"]) / ("train" if nested else ".")
    names = [f"0004cfab-14fd-{number}" for number in range(6)]
    for number, name in enumerate(names):
        slice_file(folder / f"{name}{suffix}", values(number), 0.0, f"1.2.{number}", PatientID=name)
        change_tags(
            dicom_block, folder / f"{name}{suffix}", ImagePositionPatient=None, ImageOrientationPatient=None
        )
    (folder / "LICENSE").write_text("terms")
    (folder / "README").write_text("read me")
    paths = {"stem": names, "name": [f"{name}{suffix}" for name in names],
             "path": [f"{'train/' if nested else ''}{name}{suffix}" for name in names]}[row]  # fmt: skip
    table = pd.DataFrame({"patientId": paths, "label": ["benign", "malignant"] * 3})
    table.to_csv(Path(dicom_block["path"]).parent / "labels.csv", index=False)
    store = make(dicom_block, table={**dicom_block["table"], "path": "patientId"})
    assert store.header.counts == {"benign": 3, "malignant": 3}
    assert store.manifest["patient"].tolist() == pseudonyms(names)
    if row == "stem":  # RSNA's patientId is both
        store = make(dicom_block, table={**dicom_block["table"], "path": "patientId", "patient": "patientId"})
        assert store.manifest["patient"].tolist() == names


def test_the_top_folder_may_be_a_series(dicom_block: dict[str, Any], make: Make, tmp_path: Path) -> None:
    for path in (Path(dicom_block["path"]) / "two").iterdir():
        path.rename(Path(dicom_block["path"]) / path.name)
    pd.DataFrame({"path": ["one", "."], "label": ["benign", "malignant"]}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    assert make(dicom_block).header.counts == {"benign": 4, "malignant": 4}


def test_a_folder_comes_before_a_file_of_its_name(dicom_block: dict[str, Any], make: Make) -> None:
    slice_file(Path(dicom_block["path"]) / "other" / "one.dcm", values(50), 0.0, "1.2.50")
    assert make(dicom_block).manifest["id"].iloc[0] == "one#0000"
