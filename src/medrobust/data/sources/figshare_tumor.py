"""Cheng's brain tumour slices: MATLAB 7.3 files in zips, with the patient and a mask of the tumour."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.core.runtime import progress
from medrobust.data.images import Raster, to_uint8
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import copy_or_download, download_file
from medrobust.data.sources.files import READ_ERRORS, Files, open_files, reader_threads, spool, zip_files
from medrobust.data.sources.labels import LEFT_OUT, LabelMap

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")
FILES_URL = "https://api.figshare.com/v2/articles/1512427/files"
#: Class of each value of `cjdata.label`.
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
PUBLISHED_COUNTS, PUBLISHED_PATIENTS = {"meningioma": 708, "glioma": 1426, "pituitary": 930}, 233


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy the zip (of zips) or folder at `data.path`; with null, download the published zips and check their md5.

    Raises:
        UserError: figshare cannot be reached, or the md5 of a file differs.
    """
    if data.path is not None:
        return copy_or_download(data, folder)
    import requests

    try:
        response = requests.get(FILES_URL, timeout=60)
        response.raise_for_status()
    except requests.RequestException as error:
        remedy = "Download the zips in a browser and set data.path to their folder"
        raise UserError(FILES_URL, f"cannot be reached ({error})", remedy) from None
    (folder / "files").mkdir()
    for file in response.json():
        if file["name"].endswith(".zip"):
            download_file(file["download_url"], folder / "files" / file["name"], file["computed_md5"])
    return {"file": "files", "checked": "md5"}


def listing(data: DataParams, folder: Path) -> Listing:
    """List the MATLAB files with their patients.

    Raises:
        UserError: h5py is not installed, there is no MATLAB file, or one is damaged (with `on_bad_image: fail`).
    """
    facts = read_json(folder / "source.json")
    files = _matlab_files(open_files(folder / facts["file"]), folder)
    labels, counts, skipped = LabelMap(data), dict[str, int](), list[dict[str, str]]()
    rows = []
    for name, label, patient, fault in _read_labels(files):
        if fault and data.on_bad_image == "fail":
            remedy = "Fix or remove the file, or set data.on_bad_image: skip"
            raise UserError(name, f"cannot be read ({fault})", remedy)
        if fault:
            skipped.append({"id": name, "reason": fault})
            continue
        counts[label] = counts.get(label, 0) + 1
        rows.append({"id": name, "raw": label, "patient": patient})
    table = pd.DataFrame(rows, columns=["id", "raw", "patient"])
    table["label"] = labels.column(table["raw"], str(folder / facts["file"]))
    dropped = table["label"] == LEFT_OUT
    left_out = {str(label): int(count) for label, count in table["raw"][dropped].value_counts().items()}
    return Listing(
        table[~dropped].drop(columns="raw").assign(slice=None, kind="real", parent="", published_split=""),
        lambda name: _raster(files[name].read(name)),
        licence="CC BY 4.0",
        citation="Cheng 2017, brain tumor dataset, figshare, doi 10.6084/m9.figshare.1512427.v5; "
        "Cheng et al. 2015, PLoS ONE 10(10)",
        url="https://figshare.com/articles/dataset/brain_tumor_dataset/1512427",
        verified=_verified(counts, table["patient"].nunique(), facts),
        skipped=skipped,
        left_out=left_out,
        masks=True,
    )


def _read_labels(files: dict[str, Files]) -> list[tuple[str, str, str, str]]:
    """Read name, published label, patient and fault (empty = none) of each file in parallel."""

    def read(name: str) -> tuple[str, str, str, str]:
        try:
            label, patient = _label_and_patient(files[name].read(name))
        except ValueError as error:
            return name, "", "", str(error)
        return name, LABELS[label], patient, ""

    names = sorted(files)
    with ThreadPoolExecutor(reader_threads()) as pool:
        return list(progress(pool.map(read, names), "listing", len(names), "files"))


def _verified(counts: dict[str, int], patients: int, facts: dict[str, str]) -> str:
    checked = ", md5 of each zip" if facts.get("checked") == "md5" else ""
    if counts == PUBLISHED_COUNTS and patients == PUBLISHED_PATIENTS:
        return f"class counts and {PUBLISHED_PATIENTS} patients of the complete release{checked}"
    return f"not the complete release ({sum(counts.values())} of {sum(PUBLISHED_COUNTS.values())} slices){checked}"


def _matlab_files(outer: Files, folder: Path) -> dict[str, Files]:
    """Find the MATLAB files by name, also inside inner zips; `cvind.mat` (the publisher's folds) is ignored.

    Raises:
        UserError: there is none, an inner zip is damaged, or two files have the same name.
    """
    archive_of: dict[str, Files] = {}
    archives = [outer]
    for name in (name for name in outer.names if name.lower().endswith(".zip")):
        try:
            archives.append(_inner_zip(outer, name, folder))
        except READ_ERRORS as error:
            raise UserError(name, f"truncated or not an archive ({error})", "Download it again") from None
    for archive in archives:
        for name in archive.names:
            if name.lower().endswith(".mat") and Path(name).name != "cvind.mat":
                if name in archive_of:
                    raise UserError(name, "is in two of the zips", "Remove one of them")
                archive_of[name] = archive
    if not archive_of:
        remedy = "Set data.path to the published zip, or to its folder"
        raise UserError(str(outer.path), "contains no MATLAB file", remedy)
    return archive_of


def _inner_zip(outer: Files, name: str, folder: Path) -> Files:
    path = outer.path / name
    if path.is_file():
        return zip_files(path, path, path.stat().st_size)
    with outer.open(name) as stream:
        content = spool(stream, path, outer.path.stat().st_size, folder)
    return zip_files(path, content, content.seek(0, io.SEEK_END))


def _label_and_patient(content: bytes) -> tuple[int, str]:
    """Read the label and the patient of a file; raises ValueError if they are missing."""
    return _read_cjdata(content, lambda data: (_label(data), _patient(data)))


def _raster(content: bytes) -> Raster:
    """Read the pixels, scaled from their minimum to their maximum, and the mask."""

    def read(data: "h5py.Group") -> Raster:
        # MATLAB stores arrays column by column, HDF5 row by row, so h5py returns them transposed.
        values, mask = np.asarray(data["image"]).T, np.asarray(data["tumorMask"]).T != 0
        if values.ndim != 2 or values.shape != mask.shape or values.max() == values.min():
            raise ValueError(f"image {values.shape} does not match tumorMask {mask.shape}, or is constant")
        return Raster(to_uint8(values, (float(values.min()), float(values.max()))), mask, bits=16)

    return _read_cjdata(content, read)


def _label(data: "h5py.Group") -> int:
    label = int(np.asarray(data["label"]).item())
    if label not in LABELS:
        raise ValueError(f"cjdata.label is {label}, but must be 1 to 3")
    return label


def _patient(data: "h5py.Group") -> str:
    """Decode `PID`, text that MATLAB stores as a column of character codes."""
    return "".join(chr(code) for code in np.asarray(data["PID"]).ravel())


def _read_cjdata(content: bytes, use: "Callable[[h5py.Group], T]") -> T:
    """Call a function with the group `cjdata` of a file.

    Raises:
        UserError: h5py is not installed.
        ValueError: the file is not a MATLAB 7.3 file, or lacks a published field.
    """
    try:
        import h5py
    except ImportError:
        remedy = "Install the extra: pip install medrobust[formats]"
        raise UserError("params.yaml: data.source: figshare_tumor", "h5py is not installed", remedy) from None
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return use(file["cjdata"])
    except (OSError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a MATLAB 7.3 file with cjdata ({error})") from None
