"""DICOM series (one folder each) with a table of labels: slices in order of position, rescaled and windowed."""

import hashlib
import struct
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut, pixel_array

from medrobust.core.params.data import DataParams
from medrobust.data.images import Raster, Window, to_uint8
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.files import READ_ERRORS, Files
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.unused import NO_ROW, unused
from medrobust.data.sources.volumes import one_row_per_slice

#: Tags for the order of slices, the patient, and the check that a folder is a single series.
TAGS = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "ImageOrientationPatient"]
#: Slices closer than this (mm) are at the same position.
MIN_SPACING = 1e-3
#: Errors of pydicom for damaged files; tags are converted on access, so any of them may be raised late.
DICOM_ERRORS = (
    InvalidDicomError, BytesLengthException, struct.error, NotImplementedError, AttributeError, TypeError,
    RuntimeError, ValueError, KeyError, IndexError, *READ_ERRORS,
)  # fmt: skip


download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each series folder in the table.

    Without patients in the table, a patient is a pseudonym of the header's PatientID, because manifests and
    reports may be shared more widely than clinical identifiers.

    Raises:
        UserError: the table does not match the folders, or a series has no clear order (with
            `on_bad_image: fail`).
    """
    files = open_raw(folder)
    rows = read_label_table(data, folder, files)
    folders = _series_folders(files)
    table, skipped, without_row = match_files(rows, folders, data)
    no_patients = (table["patient"] == "").all()
    series: dict[str, _Series] = {}

    def count_slices(name: str) -> int:
        series[name] = _in_order(files, folders[name])
        return len(series[name].files)

    table, unusable = one_row_per_slice(table, count_slices, data)
    if no_patients:
        table["patient"] = [series[name.rpartition("#")[0]].patient for name in table["id"]]
    read = partial(_read, files, series, data.window)
    release = Release(verified="one series per folder, slices in order of position")
    return Listing(table, read, release, skipped=skipped + unusable, left_out=rows.left_out,
                   unused=unused(NO_ROW, without_row))  # fmt: skip


class _Series(NamedTuple):
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
    """Sort a series by the position of each slice along the normal of its plane; raises ValueError."""
    headers = [_read_header(files, name) for name in names]
    series, patients, *geometry = zip(*headers, strict=True)
    if len(set(series)) > 1:
        raise ValueError("the folder contains several series")
    pseudonym = f"P{hashlib.sha256(patients[0].encode()).hexdigest()[:12]}" if patients[0] else ""
    if len(names) == 1:
        return _Series(names, pseudonym)
    positions, planes = (np.array(part) for part in geometry)
    if (missing := np.isnan(positions).any(axis=1)).any():
        raise ValueError(f"{names[int(missing.argmax())]} has no ImagePositionPatient")
    if np.isnan(planes).any() or np.ptp(planes, axis=0).max() > 0.01:
        raise ValueError("its slices are in different planes, or their headers have no plane")
    heights = positions @ np.cross(planes[0, :3], planes[0, 3:])
    order = np.argsort(heights)
    if (np.diff(heights[order]) < MIN_SPACING).any():
        raise ValueError("two of its slices are at the same position")
    return _Series([names[index] for index in order], pseudonym)


def _read_header(files: Files, name: str) -> tuple[str, str, list[float], list[float]]:
    """Read series, patient, position (3 numbers) and plane (6 numbers) of a slice; missing numbers are NaN."""
    try:
        with files.open(name) as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
        position, plane = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        return (
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("PatientID", "")),
            [float(number) for number in position or [np.nan] * 3],
            [float(number) for number in plane or [np.nan] * 6],
        )
    except DICOM_ERRORS as error:
        raise ValueError(f"{name} is truncated or not a DICOM file ({error})") from None


def _read(files: Files, series: dict[str, _Series], window: Window | None, name: str) -> Raster:
    key, _, number = name.rpartition("#")
    try:
        with files.open(series[key].files[int(number)]) as stream:
            dataset = pydicom.dcmread(stream)
        values, bits = pixel_array(dataset), int(dataset.BitsStored)
        frames, colour = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.SamplesPerPixel) > 1
        if not colour:
            values = apply_modality_lut(values, dataset)
    except DICOM_ERRORS as error:
        raise ValueError(f"its pixels cannot be decoded ({error})") from None
    if frames > 1:
        raise ValueError(f"it has {frames} frames")
    if colour:
        return Raster(to_uint8(values, (0.0, 2.0**bits - 1)), bits=bits)
    pixels = to_uint8(values, window or _header_window(dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":  # in this format the smallest value is white
        pixels = 255 - pixels
    return Raster(pixels, bits=bits)


def _header_window(dataset: pydicom.Dataset) -> Window:
    """First window of the header, as intensities of black and white (DICOM PS3.3 C.11.2.1.2.1)."""
    try:
        centre, width = (float(np.atleast_1d(dataset[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth"))
    except DICOM_ERRORS:
        raise ValueError("its header has no window; set data.window") from None
    if width <= 1:
        raise ValueError(f"the window in its header has width {width:g}; set data.window")
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
