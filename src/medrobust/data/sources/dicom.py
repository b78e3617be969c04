"""DICOM series (one folder each) with a table of labels: slices in order of position, rescaled and windowed."""

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
from medrobust.data.sources.fetch import copy_or_download
from medrobust.data.sources.files import READ_ERRORS, Files, open_files
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.volumes import one_row_per_slice, selected_slices

if TYPE_CHECKING:
    import pydicom

#: Tags for the order of slices, the patient, and the check that a folder is a single series.
TAGS = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "ImageOrientationPatient"]
#: Slices closer than this (mm) are at the same position.
MIN_SPACING = 1e-3


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or download the archive or folder of series at `data.path`, and the table."""
    return copy_or_download(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each series folder in the table.

    The patient comes from the table. Without that column it is a pseudonym of the header's PatientID, because
    manifests and reports may be shared more widely than clinical identifiers.

    Raises:
        UserError: pydicom is not installed, the table does not match the folders, or a series has no clear order
            (with `on_bad_image: fail`).
    """
    files = open_files(folder / read_json(folder / "source.json")["file"])
    rows = read_label_table(data, folder, files)
    series = _series_folders(files)
    table, skipped = match_files(rows, series, data)
    ordered: dict[str, _Series] = {}
    slices: dict[str, list[int]] = {}
    for name in progress(table["id"].tolist(), "listing", unit="series"):
        try:
            ordered[name] = _in_order(files, series[name])
            slices[name] = selected_slices(len(ordered[name].files), data.volume)
        except ValueError as error:
            if data.on_bad_image == "fail":
                remedy = "Fix or remove it, or set data.on_bad_image: skip"
                raise UserError(name, f"is not a usable series ({error})", remedy) from None
            skipped.append({"id": name, "reason": str(error)})
    if (table["patient"] == "").all():
        table["patient"] = [ordered[name].patient if name in ordered else "" for name in table["id"]]
    return Listing(
        one_row_per_slice(table, slices), partial(_read, files, ordered, data.window), "unknown", "unknown", "",
        verified="one series per folder, slices in order of position", skipped=skipped, left_out=rows.left_out,
    )  # fmt: skip


@dataclass(frozen=True)
class _Series:
    """Files of a series in order of position, and the pseudonym of its patient (empty = unknown)."""

    files: list[str]
    patient: str


def _series_folders(files: Files) -> dict[str, list[str]]:
    """Group files by folder, without tables and DICOMDIR; a DICOM file may have any suffix or none."""
    folders: dict[str, list[str]] = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".txt", ".json") and path.name != "DICOMDIR":
            folders.setdefault(path.parent.as_posix(), []).append(name)
    return folders


def _in_order(files: Files, names: list[str]) -> _Series:
    """Sort a series by the position of each slice along the normal of its plane.

    Raises:
        ValueError: there are several series or planes, a slice has no position, or two have the same.
    """
    headers = [_read_header(files, name) for name in names]
    if len({header.series for header in headers}) > 1:
        raise ValueError("the folder contains several series")
    patient = headers[0].patient
    pseudonym = f"P{hashlib.sha256(patient.encode()).hexdigest()[:12]}" if patient else ""
    if len(names) == 1:
        return _Series(names, pseudonym)
    positions, planes = (np.array([getattr(h, part) for h in headers]) for part in ("position", "plane"))
    if (missing := np.isnan(positions).any(axis=1)).any():
        raise ValueError(f"{names[int(missing.argmax())]} has no ImagePositionPatient")
    if np.isnan(planes).any() or np.ptp(planes, axis=0).max() > 0.01:
        raise ValueError("its slices are in different planes, or their headers have no plane")
    heights = positions @ np.cross(planes[0, :3], planes[0, 3:])
    order = np.argsort(heights)
    if (np.diff(heights[order]) < MIN_SPACING).any():
        raise ValueError("two of its slices are at the same position")
    return _Series([names[index] for index in order], pseudonym)


@dataclass(frozen=True)
class _SliceHeader:
    """Series, patient and geometry of a slice.

    Attributes:
        series: SeriesInstanceUID.
        patient: PatientID.
        position: ImagePositionPatient, 3 numbers in mm; NaN if missing.
        plane: ImageOrientationPatient, directions of rows and columns, 6 numbers; NaN if missing.
    """

    series: str
    patient: str
    position: list[float]
    plane: list[float]


def _read_header(files: Files, name: str) -> _SliceHeader:
    """Read the header of a file without its pixels; raises ValueError if it is not a DICOM file."""
    try:
        import pydicom
    except ImportError:
        remedy = "Install the extra: pip install medrobust[formats]"
        raise UserError("params.yaml: data.source: dicom", "pydicom is not installed", remedy) from None
    try:
        with files.open(name) as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
        position, plane = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        return _SliceHeader(
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("PatientID", "")),
            [float(number) for number in position or [np.nan] * 3],
            [float(number) for number in plane or [np.nan] * 6],
        )
    except _read_errors() as error:
        raise ValueError(f"{name} is truncated or not a DICOM file ({error})") from None


def _read(files: Files, series: dict[str, _Series], window: Window | None, name: str) -> Raster:
    """Decode one slice.

    Raises:
        ValueError: the slice is damaged, has several frames, needs a decoder that is not installed, or a window.
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
    except _read_errors() as error:
        raise ValueError(f"its pixels cannot be decoded ({error})") from None
    if frames > 1:
        raise ValueError(f"it has {frames} frames")
    if colour:
        return Raster(to_uint8(values, (0.0, 2.0**bits - 1)), bits=bits)
    pixels = to_uint8(values, window or _header_window(dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":  # in this format the smallest value is white
        pixels = 255 - pixels
    return Raster(pixels, bits=bits)


def _read_errors() -> tuple[type[Exception], ...]:
    """Exceptions of pydicom for damaged files; tags are converted on access, so any of them may be raised late."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        InvalidDicomError, BytesLengthException, struct.error, NotImplementedError, AttributeError, TypeError,
        RuntimeError, ValueError, KeyError, IndexError, *READ_ERRORS,
    )  # fmt: skip


def _header_window(dataset: "pydicom.Dataset") -> Window:
    """First window of the header, as intensities of black and white (DICOM PS3.3 C.11.2.1.2.1).

    Raises:
        ValueError: the header has no window, or its width is 1 or less.
    """
    try:
        centre, width = (float(np.atleast_1d(dataset[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth"))
    except _read_errors():
        raise ValueError("its header has no window; set data.window") from None
    if width <= 1:
        raise ValueError(f"the window in its header has width {width:g}; set data.window")
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
