"""DICOM series (a folder each) and a table of their labels: slices in order of position, rescaled and windowed."""

import hashlib
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.core.runtime import progress
from medrobust.data.images import Raster, Window, to_uint8
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring
from medrobust.data.sources.files import DAMAGED, Files, open_files
from medrobust.data.sources.labels import locate, read_rows
from medrobust.data.sources.volumes import chosen_slices, one_row_a_slice

if TYPE_CHECKING:
    import pydicom

#: What the order, the patient and the check for a single series need.
TAGS = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "ImageOrientationPatient"]
#: Slices nearer than this (mm) are at the same place.
SAME_PLACE = 1e-3


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or fetch the archive or folder of series at `data.path`, and the table."""
    return bring(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """One row a chosen slice of each series folder that the table names.

    The patient is the table's; without that column a pseudonym of the header's PatientID, because manifests and
    reports travel further than clinical identifiers may.

    Raises:
        UserError: pydicom is not installed, the table does not fit the folders, or a series has no clear order
            (with `on_bad_image: fail`).
    """
    files = open_files(folder / read_json(folder / "source.json")["file"])
    rows = read_rows(data, folder, files)
    series = _series_folders(files)
    table, skipped = locate(rows, series, data)
    found: dict[str, _Series] = {}
    slices: dict[str, list[int]] = {}
    for name in progress(table["id"].tolist(), "listing", unit="series"):
        try:
            found[name] = _in_order(files, series[name])
            slices[name] = chosen_slices(len(found[name].files), data.volume)
        except ValueError as error:
            if data.on_bad_image == "fail":
                remedy = "Mend or remove it, or set data.on_bad_image: skip"
                raise UserError(name, f"is no series that can be used ({error})", remedy) from None
            skipped.append({"id": name, "reason": str(error)})
    if (table["patient"] == "").all():
        table["patient"] = [found[name].patient if name in found else "" for name in table["id"]]
    return Listing(
        one_row_a_slice(table, slices), partial(_read, files, found, data.window), "unknown", "unknown", "",
        verified="one series a folder, slices in order of position", skipped=skipped, left_out=rows.left_out,
    )  # fmt: skip


@dataclass(frozen=True)
class _Series:
    """The files of a series in order of position, and a pseudonym of its patient (empty = unknown)."""

    files: list[str]
    patient: str


def _series_folders(files: Files) -> dict[str, list[str]]:
    """Files by folder; a DICOM file may have any ending or none, but tables and DICOMDIR are none."""
    folders: dict[str, list[str]] = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".txt", ".json") and path.name != "DICOMDIR":
            folders.setdefault(path.parent.as_posix(), []).append(name)
    return folders


def _in_order(files: Files, names: list[str]) -> _Series:
    """Sort a series by where each slice lies along the normal of its plane.

    Raises:
        ValueError: several series or planes, a slice without a position, or two at the same place.
    """
    slices = [_slice(files, name) for name in names]
    if len({one.series for one in slices}) > 1:
        raise ValueError("the folder holds several series")
    patient = slices[0].patient
    pseudonym = f"P{hashlib.sha256(patient.encode()).hexdigest()[:12]}" if patient else ""
    if len(names) == 1:
        return _Series(names, pseudonym)
    positions, planes = (np.array([getattr(one, part) for one in slices]) for part in ("position", "plane"))
    if (lost := np.isnan(positions).any(axis=1)).any():
        raise ValueError(f"{names[int(lost.argmax())]} has no ImagePositionPatient")
    if np.isnan(planes).any() or np.ptp(planes, axis=0).max() > 0.01:
        raise ValueError("its slices lie in different planes, or do not say in which")
    heights = positions @ np.cross(planes[0, :3], planes[0, 3:])
    order = np.argsort(heights)
    if (np.diff(heights[order]) < SAME_PLACE).any():
        raise ValueError("two of its slices lie at the same place")
    return _Series([names[place] for place in order], pseudonym)


@dataclass(frozen=True)
class _Slice:
    """What a file's header says of its place: mm, and directions of rows and columns; NaN where it does not."""

    series: str
    patient: str
    position: list[float]
    plane: list[float]


def _slice(files: Files, name: str) -> _Slice:
    """Read a file's header without its pixels; raises ValueError where it is no DICOM."""
    try:
        import pydicom
    except ImportError:
        remedy = "Install the extra: pip install medrobust[formats]"
        raise UserError("params.yaml: data.source: dicom", "pydicom is not installed", remedy) from None
    try:
        with files.open(name) as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
        position, plane = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        return _Slice(
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("PatientID", "")),
            [float(number) for number in position or [np.nan] * 3],
            [float(number) for number in plane or [np.nan] * 6],
        )
    except _damaged() as error:
        raise ValueError(f"{name} is truncated or no DICOM file ({error})") from None


def _read(files: Files, series: dict[str, _Series], window: Window | None, name: str) -> Raster:
    """Decode one slice.

    Raises:
        ValueError: damaged, several frames, packed in a way that needs another decoder, or without a window.
    """
    import pydicom
    from pydicom.pixels import apply_modality_lut, pixel_array

    key, _, number = name.rpartition("#")
    file = series[key].files[int(number)]
    try:
        with files.open(file) as stream:
            dataset = pydicom.dcmread(stream)
        values, bits = pixel_array(dataset), int(dataset.BitsStored)
        frames, colour = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.SamplesPerPixel) > 1
        if not colour:
            values = apply_modality_lut(values, dataset)
    except _damaged() as error:
        raise ValueError(f"its pixels cannot be decoded ({error})") from None
    if frames > 1:
        raise ValueError(f"{frames} frames")
    if colour:
        return Raster(to_uint8(values, (0.0, 2.0**bits - 1)), bits=bits)
    pixels = to_uint8(values, window or _own_window(dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":  # the smallest value is white
        pixels = 255 - pixels
    return Raster(pixels, bits=bits)


def _damaged() -> tuple[type[Exception], ...]:
    """What pydicom raises for damaged files; it converts a tag when it is asked for, so each may come late."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        InvalidDicomError, BytesLengthException, struct.error, NotImplementedError, AttributeError, TypeError,
        RuntimeError, ValueError, KeyError, IndexError, *DAMAGED,
    )  # fmt: skip


def _own_window(dataset: "pydicom.Dataset") -> Window:
    """The header's first window, as intensities of black and white (DICOM PS3.3 C.11.2.1.2.1).

    Raises:
        ValueError: it has none.
    """
    try:
        centre, width = (float(np.atleast_1d(dataset[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth"))
    except _damaged():
        raise ValueError("its header has no window: data.window must say what is black and white") from None
    if width <= 1:
        raise ValueError(f"the window of its header is {width:g} wide: set data.window")
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
