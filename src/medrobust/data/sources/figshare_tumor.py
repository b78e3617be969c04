"""Cheng's brain tumour slices: MATLAB 7.3 files in zips, with the patient and the outline of the tumour."""

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
from medrobust.data.sources.fetch import bring, fetch_url
from medrobust.data.sources.files import DAMAGED, Files, open_files, readers, spool, zip_files
from medrobust.data.sources.labels import LEFT_OUT, Labels

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")
FILES = "https://api.figshare.com/v2/articles/1512427/files"
#: `cjdata.label` counts from 1.
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
COUNTS, PATIENTS = {"meningioma": 708, "glioma": 1426, "pituitary": 930}, 233


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy the zip (of zips) or folder at `data.path`; with null fetch the published zips and check their md5.

    Raises:
        UserError: figshare does not answer, or a file is not the published one.
    """
    if data.path is not None:
        return bring(data, folder)
    import requests

    try:
        answer = requests.get(FILES, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        remedy = "Fetch the zips in a browser, and give their folder as data.path"
        raise UserError(FILES, f"does not answer ({error})", remedy) from None
    (folder / "files").mkdir()
    for file in answer.json():
        if file["name"].endswith(".zip"):
            fetch_url(file["download_url"], folder / "files" / file["name"], file["computed_md5"])
    return {"file": "files", "checked": "md5"}


def listing(data: DataParams, folder: Path) -> Listing:
    """One row a MATLAB file, with its patient.

    Raises:
        UserError: h5py is not installed, no MATLAB file is there, or one is damaged (with `on_bad_image: fail`).
    """
    facts = read_json(folder / "source.json")
    files = _matlab_files(open_files(folder / facts["file"]), folder)
    labels, counts, skipped = Labels(data), dict[str, int](), list[dict[str, str]]()
    rows = []
    for name, label, patient, fault in _facts(files):
        if fault and data.on_bad_image == "fail":
            remedy = "Mend or remove the file, or set data.on_bad_image: skip"
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


def _facts(files: dict[str, Files]) -> list[tuple[str, str, str, str]]:
    """Name, published label, patient and fault (empty = none) of each file, read in parallel."""

    def work(name: str) -> tuple[str, str, str, str]:
        try:
            label, patient = _label_and_patient(files[name].read(name))
        except ValueError as error:
            return name, "", "", str(error)
        return name, LABELS[label], patient, ""

    names = sorted(files)
    with ThreadPoolExecutor(readers()) as pool:
        return list(progress(pool.map(work, names), "listing", len(names), "files"))


def _verified(counts: dict[str, int], patients: int, facts: dict[str, str]) -> str:
    checked = ", md5 of each zip" if facts.get("checked") == "md5" else ""
    if counts == COUNTS and patients == PATIENTS:
        return f"class counts and {PATIENTS} patients of the whole release{checked}"
    return f"not the whole release ({sum(counts.values())} of {sum(COUNTS.values())} slices){checked}"


def _matlab_files(outer: Files, folder: Path) -> dict[str, Files]:
    """The MATLAB files by name, those inside inner zips too; `cvind.mat` (the publisher's folds) is none of them.

    Raises:
        UserError: there is none, an inner zip is damaged, or two have the same name.
    """
    found: dict[str, Files] = {}
    archives = [outer]
    for name in (name for name in outer.names if name.lower().endswith(".zip")):
        try:
            archives.append(_inner_zip(outer, name, folder))
        except DAMAGED as error:
            raise UserError(name, f"truncated or no archive ({error})", "Fetch it again") from None
    for archive in archives:
        for name in archive.names:
            if name.lower().endswith(".mat") and Path(name).name != "cvind.mat":
                if name in found:
                    raise UserError(name, "stands in two of the zips", "Leave one of them")
                found[name] = archive
    if not found:
        raise UserError(str(outer.place), "holds no MATLAB file", "Give the zip as published, or its folder")
    return found


def _inner_zip(outer: Files, name: str, folder: Path) -> Files:
    path = outer.place / name
    if path.is_file():
        return zip_files(path, path, path.stat().st_size)
    with outer.open(name) as stream:
        content = spool(stream, path, outer.place.stat().st_size, folder)
    return zip_files(path, content, content.seek(0, io.SEEK_END))


def _label_and_patient(content: bytes) -> tuple[int, str]:
    """What a file says beside its pixels; raises ValueError where it does not."""
    return _with_data(content, lambda data: (_label(data), _patient(data)))


def _raster(content: bytes) -> Raster:
    """Pixels scaled from their smallest to their largest value, and the mask."""

    def read(data: "h5py.Group") -> Raster:
        # MATLAB stores columns first, HDF5 rows first: what h5py reads is transposed.
        values, mask = np.asarray(data["image"]).T, np.asarray(data["tumorMask"]).T != 0
        if values.ndim != 2 or values.shape != mask.shape or values.max() == values.min():
            raise ValueError(f"image {values.shape}, tumorMask {mask.shape}: no picture with its mask")
        return Raster(to_uint8(values, (float(values.min()), float(values.max()))), mask, bits=16)

    return _with_data(content, read)


def _label(data: "h5py.Group") -> int:
    label = int(np.asarray(data["label"]).item())
    if label not in LABELS:
        raise ValueError(f"cjdata.label is {label}, known are 1 to 3")
    return label


def _patient(data: "h5py.Group") -> str:
    """`PID` is text, which MATLAB stores as a column of character codes."""
    return "".join(chr(code) for code in np.asarray(data["PID"]).ravel())


def _with_data(content: bytes, use: "Callable[[h5py.Group], T]") -> T:
    """Give `cjdata` of a file to a function.

    Raises:
        UserError: h5py is not installed.
        ValueError: no MATLAB 7.3 file, or it lacks what the published ones have.
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
        raise ValueError(f"no MATLAB 7.3 file with cjdata ({error})") from None
