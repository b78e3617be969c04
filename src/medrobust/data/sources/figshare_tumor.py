"""Cheng's brain tumour slices: MATLAB 7.3 files in zips, with patient, mask of the tumour and published folds."""

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import requests

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.core.runtime import progress, say
from medrobust.data.images import Raster, to_uint8
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, download_file, open_raw
from medrobust.data.sources.files import READ_ERRORS, Files, reader_threads, spool, zip_files
from medrobust.data.sources.labels import LabelMap, drop_left_out

CITATION = (
    "Cheng 2017, brain tumor dataset, figshare, doi 10.6084/m9.figshare.1512427.v5; "
    "Cheng et al. 2015, PLoS ONE 10(10)"
)
PAGE = "https://figshare.com/articles/dataset/brain_tumor_dataset/1512427"
FILES_URL = "https://api.figshare.com/v2/articles/1512427/files"
#: Class of each value of `cjdata.label`.
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
#: File with the publisher's folds: one number from 1 on per image, in the order of the files' numbers.
FOLDS = "cvind.mat"
PARTIAL = "not the complete release"
PUBLISHED_COUNTS, PUBLISHED_PATIENTS = {"meningioma": 708, "glioma": 1426, "pituitary": 930}, 233


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy the zip (of zips) or folder at `data.path`; with null, download the published zips and check their md5.

    Raises:
        UserError: figshare cannot be reached, or the md5 of a file differs.
    """
    if data.path is not None:
        return copy_or_download(data, folder, seed)
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
        UserError: there is no MATLAB file, or one is damaged (with `on_bad_image: fail`).
    """
    facts = read_json(folder / "source.json")
    files = _matlab_files(open_raw(folder), folder)

    def read_labels(name: str) -> tuple[str, str, str]:
        try:
            return *_label_and_patient(files[name].read(name)), ""
        except ValueError as error:
            return "", "", str(error)

    names = sorted(files)
    with ThreadPoolExecutor(reader_threads()) as pool:
        labels = list(progress(pool.map(read_labels, names), "listing", len(names), "files"))
    rows, skipped = [], []
    for name, (label, patient, fault) in zip(names, labels, strict=True):
        if fault and data.on_bad_image == "fail":
            remedy = "Fix or remove the file, or set data.on_bad_image: skip"
            raise UserError(name, f"cannot be read ({fault})", remedy)
        if fault:
            skipped.append({"id": name, "reason": fault})
        else:
            rows.append({"id": name, "raw": label, "patient": patient})
    whole = pd.DataFrame(rows, columns=["id", "raw", "patient"])
    whole["label"] = LabelMap(data).column(whole["raw"], str(folder / facts["file"]))
    table, left_out = drop_left_out(whole, whole["raw"])
    folds = _published_folds(open_raw(folder))
    published = [folds.get(Path(name).stem, "") for name in table["id"]]
    table = table.assign(slice=None, kind="real", parent="", published_split=published)
    verified = _verified(Counter(whole["raw"]), whole["patient"].nunique(), facts)
    doubt = verified if verified.startswith(PARTIAL) else ""
    release = Release("unknown" if doubt else "CC BY 4.0", CITATION, PAGE, verified, doubt)
    return Listing(table, partial(_read, files), release, skipped=skipped, left_out=left_out, masks=True)


def _verified(counts: dict[str, int], patients: int, facts: dict[str, str]) -> str:
    checked = ", md5 of each zip" if facts.get("checked") == "md5" else ""
    if counts == PUBLISHED_COUNTS and patients == PUBLISHED_PATIENTS:
        return f"class counts and {PUBLISHED_PATIENTS} patients of the complete release{checked}"
    return f"{PARTIAL} ({sum(counts.values())} of {sum(PUBLISHED_COUNTS.values())} slices){checked}"


def _matlab_files(outer: Files, folder: Path) -> dict[str, Files]:
    """Find the MATLAB files of images by name, also inside inner zips."""
    archive_of: dict[str, Files] = {}
    archives = [outer]
    for name in (name for name in outer.names if name.lower().endswith(".zip")):
        try:
            archives.append(_inner_zip(outer, name, folder))
        except READ_ERRORS as error:
            raise UserError(name, f"truncated or not an archive ({error})", "Download it again") from None
    for archive in archives:
        for name in archive.names:
            if name.lower().endswith(".mat") and Path(name).name != FOLDS:
                if name in archive_of:
                    raise UserError(name, "is in two of the zips", "Remove one of them")
                archive_of[name] = archive
    if not archive_of:
        remedy = "Set data.path to the published zip, or to its folder"
        raise UserError(str(outer.path), "contains no MATLAB file", remedy)
    return archive_of


def _published_folds(files: Files) -> dict[str, str]:
    """The publisher's fold by the number in an image's file name; {} if there is no such file that can be read."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    for name in (name for name in files.names if Path(name).name == FOLDS):
        content = files.read(name)
        try:
            if content.startswith(b"MATLAB 7.3"):
                with h5py.File(io.BytesIO(content), "r") as file:
                    folds = np.asarray(file["cvind"]).ravel()
            else:
                folds = loadmat(io.BytesIO(content))["cvind"].ravel()
        except (OSError, KeyError, ValueError, TypeError, MatReadError) as error:
            say(f"download: {FOLDS} cannot be read, so there are no published folds ({error})")
            return {}
        return {str(number): str(int(fold)) for number, fold in enumerate(folds, 1)}
    return {}


def _inner_zip(outer: Files, name: str, folder: Path) -> Files:
    path = outer.path / name
    if path.is_file():
        return zip_files(path, path, path.stat().st_size)
    with outer.open(name) as stream:
        content = spool(stream, path, outer.path.stat().st_size, folder)
    return zip_files(path, content, content.seek(0, io.SEEK_END))


def _label_and_patient(content: bytes) -> tuple[str, str]:
    with _cjdata(content) as data:
        label = int(np.asarray(data["label"]).item())
        if label not in LABELS:
            raise ValueError(f"cjdata.label is {label}, but must be 1 to 3")
        # MATLAB stores text as a column of character codes.
        return LABELS[label], "".join(chr(code) for code in np.asarray(data["PID"]).ravel())


def _read(files: dict[str, Files], name: str) -> Raster:
    """Read the pixels, scaled from their minimum to their maximum, and the mask."""
    with _cjdata(files[name].read(name)) as data:
        # MATLAB stores arrays column by column, HDF5 row by row, so h5py returns them transposed.
        values, mask = np.asarray(data["image"]).T, np.asarray(data["tumorMask"]).T != 0
    if values.ndim != 2 or values.shape != mask.shape or values.max() == values.min():
        raise ValueError(f"image {values.shape} does not match tumorMask {mask.shape}, or is constant")
    return Raster(to_uint8(values, (float(values.min()), float(values.max()))), mask, bits=16)


@contextmanager
def _cjdata(content: bytes) -> Iterator[h5py.Group]:
    """Open the group `cjdata` of a file; errors of h5py inside the block become a ValueError."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file["cjdata"]
    except (OSError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a MATLAB 7.3 file with cjdata ({error})") from None
