"""DICOM series (one folder each, or one file each) with a table of labels: slices in order of position."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydicom import uid
from pydicom.errors import InvalidDicomError

from medrobust.core.params.data import DataParams, InputParams
from medrobust.data.images import Raster
from medrobust.data.pseudonyms import pseudonyms
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.dicom_pixels import DICOM_ERRORS, decode, read_dataset
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.files import Files, fault
from medrobust.data.sources.labels import match_files, read_label_table
from medrobust.data.sources.unused import NO_ROW, unused
from medrobust.data.sources.volumes import DICOM_SUFFIXES, BadFileError, one_row_per_slice, selected_slices

#: Tags for the order of slices, the patient, and the check that a folder is a single series.
TAGS = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "ImageOrientationPatient",
        "ImageType", "Rows"]  # fmt: skip
#: Slices closer than this (mm) are at the same position.
MIN_SPACING = 1e-3
#: Suffixes of label tables and notes, which may be in any folder.
TABLES = (".csv", ".tsv", ".parquet", ".txt", ".json")
#: Images that accompany a series; where they are alone, they are the series.
COMPANIONS = {
    uid.SegmentationStorage, uid.RTDoseStorage, uid.ParametricMapStorage, uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage, uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage, uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
}  # fmt: skip


download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the selected slices of each series in the table: a folder, or a file that is one image of a patient.

    A file in a folder that is not an image of the series is left out and listed as skipped. Without patients in
    the table, a patient is a pseudonym of the header's PatientID, because manifests and reports may be shared
    more widely than clinical identifiers.

    Raises:
        UserError: the table does not match the files, or a series has no clear order (with `on_bad_image: fail`).
    """
    files = open_raw(folder)
    rows = read_label_table(data, folder, files)
    units = _units(files, rows.table["path"])
    table, skipped, without_row = match_files(rows, units, data)
    no_patients = (table["patient"] == "").all()
    series: dict[str, Series] = {}

    def count_slices(name: str) -> int:
        series[name] = _in_order(files, units[name])
        return len(series[name].files)

    table, unusable = one_row_per_slice(table, count_slices, data)
    if no_patients:
        table["patient"] = pseudonyms([series[name.rpartition("#")[0]].patient for name in table["id"]])
    foreign = [file for found in series.values() for file in found.left_out]
    read = partial(_read, files, series, data)
    release = Release(verified="one series per folder, slices in order of position")
    return Listing(
        table, read, release, skipped=skipped + unusable + foreign, left_out=rows.left_out,
        unused=unused(NO_ROW, without_row),
    )  # fmt: skip


class Series(NamedTuple):
    """Files of a series in order of position, its PatientID (empty = unknown), and {id, reason} of other files."""

    files: list[str]
    patient: str
    left_out: list[dict[str, str]]


class _Slice(NamedTuple):
    """What the header of a slice says about its place; missing numbers are NaN."""

    name: str
    series: str
    patient: str
    companion: str  # why it may be left out of a series; empty for an image of the series
    position: list[float]  # 3
    plane: list[float]  # 6


def _units(files: Files, paths: pd.Series) -> dict[str, list[str]]:
    """Files of what a row of the table may be: a folder if any of the `paths` is one, otherwise a single file."""
    folders: dict[str, list[str]] = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in TABLES and path.name != "DICOMDIR":
            folders.setdefault(path.parent.as_posix(), []).append(name)
    known = {PurePosixPath(folder).name.lower() for folder in folders} - {""}
    if any(path in folders or PurePosixPath(path).name.lower() in known for path in paths):
        return folders
    return {name: [name] for names in folders.values() for name in names}


def series_of(files: Files, names: list[str]) -> tuple[list[Series], dict[str, str]]:
    """The series that files belong to, each in order of position, and file -> why it, or its series, is unusable.

    For use without a table. Images without a position, such as X-rays of one study, are series of their own.
    """
    faults: dict[str, str] = {}
    headers: dict[str, _Slice | str] = {}
    for name in names:
        try:
            headers[name] = _read_header(files, name)
        except BadFileError as error:
            faults[name] = error.reason.removeprefix("one of its files ")
    slices, foreign = _images_among(headers)
    groups: dict[tuple[str, str], list[_Slice]] = {}
    placed = {one.series for one in slices if np.isfinite(one.position).any()}
    for one in slices:
        groups.setdefault((one.series, "" if one.series in placed else one.name), []).append(one)
    found = []
    for group in groups.values():
        try:
            found.append(Series(_by_position(group), group[0].patient, foreign))
        except ValueError as error:
            faults[group[0].name] = f"is in a series that is not usable ({error})"
    return found, faults


def slices_of(files: Files, series: Series, data: InputParams) -> Iterator[tuple[int, Raster]]:
    """The selected slices of a series, with their numbers, as `listing` would list and read them.

    Raises:
        ValueError: a slice cannot be decoded.
    """
    for number in selected_slices(len(series.files), data.volume):
        yield number, _decoded(files, series.files[number], data)


def _in_order(files: Files, names: list[str]) -> Series:
    """Sort a series by the position of each slice along the normal of its plane; raises ValueError."""
    slices, foreign = _images_among({name: _read_header(files, name) for name in names})
    if not slices:
        raise BadFileError(
            names[0], f"is {foreign[0]['reason'].partition(',')[0]}, and none is an image of a series"
        )
    for found, what in (({one.series for one in slices}, "several series"),
                        ({one.patient for one in slices}, "several patients")):  # fmt: skip
        if len(found) > 1:
            raise ValueError(f"the folder contains {what}; give each a folder of its own")
    return Series(_by_position(slices), slices[0].patient, foreign)


def _images_among(headers: dict[str, "_Slice | str"]) -> tuple[list["_Slice"], list[dict[str, str]]]:
    """The images of series among files, and {id, reason} of the files that are none or accompany a series."""
    left_out = {name: found for name, found in headers.items() if isinstance(found, str)}
    slices = [found for found in headers.values() if not isinstance(found, str)]
    if any(not one.companion for one in slices):
        left_out |= {one.name: one.companion for one in slices if one.companion}
        slices = [one for one in slices if not one.companion]
    return slices, [
        {"id": name, "reason": f"{reason}, left out of its series"} for name, reason in left_out.items()
    ]


def _by_position(slices: list[_Slice]) -> list[str]:
    if len(slices) == 1:
        return [slices[0].name]
    positions, planes = (np.array([getattr(one, name) for one in slices]) for name in ("position", "plane"))
    if (missing := np.isnan(positions).any(axis=1)).any():
        raise BadFileError(slices[int(missing.argmax())].name, "has no ImagePositionPatient")
    if np.isnan(planes).any() or np.ptp(planes, axis=0).max() > 0.01:
        raise ValueError("its slices are in different planes, or their headers have no plane")
    heights = positions @ np.cross(planes[0, :3], planes[0, 3:])
    order = np.argsort(heights)
    if (np.diff(heights[order]) < MIN_SPACING).any():
        raise ValueError("two of its slices are at the same position; keep one time point in a folder")
    return [slices[index].name for index in order]


def _read_header(files: Files, name: str) -> _Slice | str:
    """Read the header of a slice; of a file that is no image of a series, return what it is.

    Raises:
        BadFileError: the file is empty or damaged.
    """
    start = b""
    try:
        with files.open(name) as stream:
            start = stream.read(1024)
            stream.seek(0)
            header = read_dataset(stream, stop_before_pixels=True, specific_tags=TAGS)
        kind = uid.UID(str(header.SOPClassUID))
        if not header.get("Rows"):
            return f"no image but {kind.name}"
        localizer = "LOCALIZER" in str(header.get("ImageType", "")).upper()
        companion = "a localizer" if localizer else f"a {kind.name}" if kind in COMPANIONS else ""
        position, plane = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        return _Slice(
            name,
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("PatientID", "")).strip(),
            companion,
            [float(number) for number in position or [np.nan] * 3],
            [float(number) for number in plane or [np.nan] * 6],
        )
    except InvalidDicomError as error:
        if any(start) and not name.lower().endswith(
            DICOM_SUFFIXES
        ):  # it has content, and was never meant to be DICOM
            return "not a DICOM file"
        raise BadFileError(name, f"is truncated or not a DICOM file ({fault(error)})") from None
    except DICOM_ERRORS as error:
        raise BadFileError(name, f"is truncated or not a DICOM file ({fault(error)})") from None


def _read(files: Files, series: dict[str, Series], data: DataParams, name: str) -> Raster:
    key, _, number = name.rpartition("#")
    return _decoded(files, series[key].files[int(number)], data)


def _decoded(files: Files, name: str, data: InputParams) -> Raster:
    try:
        with files.open(name) as stream:
            dataset = read_dataset(stream)
    except DICOM_ERRORS as error:
        raise ValueError(f"its pixels cannot be decoded ({fault(error)})") from None
    return decode(dataset, data)
