"""MedMNIST v2 and v3: one npz per flag and size, from Zenodo or a local file.

`medmnist.json` holds the published facts of each flag: class names, counts, licence, and the md5 of each file.
"""

import json
import re
import zipfile
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import file_hash, read_json
from medrobust.data.images import Raster
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, download_file, expand_path
from medrobust.data.sources.files import READ_ERRORS, spool
from medrobust.data.sources.labels import LabelMap, drop_left_out

CITATION = "Yang et al. 2023, MedMNIST v2, Scientific Data 10:41"
ZENODO = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
#: `octmnist` has images of 28×28 pixels, `octmnist_64` of 64×64.
NAME = re.compile(r"([a-z0-9]+?mnist(?:3d)?)(?:_(\d+))?")
SPLITS = ("train", "val", "test")


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Download `data.path` (a flag, with `_64`, `_128` or `_224` for larger images), or copy a local npz.

    Raises:
        UserError: `data.path` is neither a flag nor a file, or the md5 is not the published one.
    """
    if data.path is None or Path(expand_path(data.path)).exists() or data.path.endswith(".npz"):
        return copy_or_download(data, folder, seed)
    flag, size = _flag(data.path)
    if flag is None or size not in flag["md5"]:
        known = ", ".join(_flags())
        remedy = f"Use one of: {known}, with size suffix none (28), _64, _128 or _224; or a local npz"
        raise UserError("params.yaml: data.path", f"{data.path!r} is not a flag of MedMNIST", remedy)
    download_file(ZENODO.format(name=data.path), folder / f"{data.path}.npz", flag["md5"][size])
    return {"file": f"{data.path}.npz", "sha256": file_hash(folder / f"{data.path}.npz")}


def listing(data: DataParams, folder: Path) -> Listing:
    """List the images of all three splits in published order; MedMNIST has no patient ids.

    Raises:
        UserError: the file is not a MedMNIST npz or contains volumes, an image has several labels, or a label is
            not a class.
    """
    path = folder / read_json(folder / "source.json")["file"]
    flag, size = _flag(path.stem)
    arrays = _open_npz(path)
    names = flag["labels"] if flag else None
    tables = []
    for split in SPLITS:
        labels = np.asarray(arrays[f"{split}_labels"])
        labels = labels[:, None] if labels.ndim == 1 else labels
        if labels.shape[1] != 1:
            found = f"has {labels.shape[1]} labels per image"
            raise UserError(str(path), found, "Use a flag with one label per image")
        ids = [f"{split}/{number:06d}" for number in range(len(labels))]
        raw = [names[n] if names and n < len(names) else str(n) for n in labels[:, 0].tolist()]
        tables.append(pd.DataFrame({"id": ids, "raw": raw, "published_split": split}))
    whole = pd.concat(tables, ignore_index=True)
    whole["label"] = LabelMap(data).column(whole["raw"], path.name)
    table, left_out = drop_left_out(whole, whole["raw"])
    table = table.assign(patient="", slice=None, kind="real", parent="")
    licence, verified = flag["licence"] if flag else "unknown", _verified(flag, size, path, whole)
    release = Release(licence, CITATION, "https://medmnist.com", verified)
    return Listing(table, partial(_read, arrays), release, left_out=left_out)


def _flags() -> dict[str, Any]:
    content = package_files("medrobust.data.sources").joinpath("medmnist.json").read_text(encoding="utf-8")
    return dict(json.loads(content))


def _flag(name: str) -> tuple[dict[str, Any] | None, str]:
    """Published facts and size of a name like `octmnist_64`; the facts are None if the name is not a flag."""
    match = NAME.fullmatch(name)
    return (_flags().get(match[1]), match[2] or "28") if match else (None, "")


def _verified(flag: dict[str, Any] | None, size: str, path: Path, table: pd.DataFrame) -> str:
    if flag is None:
        return "nothing (the file name is not a flag of MedMNIST)"
    if flag["md5"].get(size) == file_hash(path, "md5"):
        return "md5 of the published file"
    counts = {split: int((table["published_split"] == split).sum()) for split in SPLITS}
    if counts == flag["images"]:
        return "counts of the published splits (the md5 differs)"
    return f"neither md5 nor counts match the publication ({counts}, published: {flag['images']})"


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    """Open the six arrays of a MedMNIST file; they are unpacked beside it and memory-mapped."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            for name in (f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")):
                if f"{name}.npy" not in members:
                    found = f"contains no {name}, but {', '.join(members)}"
                    raise UserError(str(path), found, "Use an npz as published by MedMNIST")
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = _map(spool(stream, path, path.stat().st_size, path.parent))
    except (*READ_ERRORS, ValueError) as error:
        raise UserError(str(path), f"truncated or not an npz ({error})", "Download it again") from None
    images = arrays["train_images"]
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        found = f"contains images of {images.dtype} with shape {images.shape[1:]}"
        raise UserError(str(path), found, "Use a flag without 3d: only grey or colour uint8 images are supported")
    return arrays


def _map(file: IO[bytes]) -> np.ndarray:
    """Memory-map an npy file; raises ValueError if it is none."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    return np.memmap(file, kind, "r", file.tell(), shape, "F" if fortran else "C")


def _read(arrays: dict[str, np.ndarray], name: str) -> Raster:
    split, _, number = name.partition("/")
    return Raster(np.asarray(arrays[f"{split}_images"][int(number)]))
