"""MedMNIST v2 and v3: one npz per flag and size, from Zenodo or a local file.

`medmnist.json` holds the published facts of each flag: class names, counts, licence, and the md5 of each file.
"""

import json
import re
import zipfile
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from tokenize import TokenError
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
from medrobust.data.sources.labels import LabelMap, as_text, drop_left_out

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
        UserError: the file is no MedMNIST npz or contains volumes, images do not have one label each, or a label
            is not a class.
    """
    path = folder / read_json(folder / "source.json")["file"]
    flag, size = _flag(path.stem)
    arrays = _open_npz(path)
    labels = [pd.Series(_column(arrays[f"{split}_labels"])) for split in SPLITS]
    counts = dict(zip(SPLITS, map(len, labels), strict=True))
    raw = as_text(pd.concat(labels, ignore_index=True))
    names = {str(number): name for number, name in enumerate(flag["labels"] if flag else [])}
    whole = pd.DataFrame({
        "id": [f"{split}/{number:06d}" for split, count in counts.items() for number in range(count)],
        "raw": [names.get(label, label) for label in raw],
        "published_split": np.repeat(SPLITS, list(counts.values())),
    })  # fmt: skip
    whole["label"] = LabelMap(data).column(whole["raw"].set_axis(whole["id"]), path.name).to_numpy()
    table, left_out = drop_left_out(whole, whole["raw"])
    table = table.assign(patient="", slice=None, kind="real", parent="")
    return Listing(table, partial(_read, arrays), _release(flag, size, path, counts), left_out=left_out)


def _column(labels: np.ndarray) -> np.ndarray:
    """Labels as a one-dimensional array; bytes become text."""
    labels = labels.reshape(len(labels))
    return np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else np.asarray(labels)


def _flags() -> dict[str, Any]:
    content = package_files("medrobust.data.sources").joinpath("medmnist.json").read_text(encoding="utf-8")
    return dict(json.loads(content))


def _flag(name: str) -> tuple[dict[str, Any] | None, str]:
    """Published facts and size of a name like `octmnist_64`; the facts are None if the name is not a flag."""
    match = NAME.fullmatch(name)
    return (_flags().get(match[1]), match[2] or "28") if match else (None, "")


def _release(flag: dict[str, Any] | None, size: str, path: Path, counts: dict[str, int]) -> Release:
    """The publication, with its licence only if the file is the published one: its name proves nothing."""
    if flag is None:
        return Release(verified="nothing (the file name is not a flag of MedMNIST)")
    if flag["md5"].get(size) == file_hash(path, "md5"):
        return Release(flag["licence"], CITATION, "https://medmnist.com", "md5 of the published file")
    found = "the counts of train, val and test are, so a part of the content differs"
    if differ := counts != flag["images"]:
        have, published = (" + ".join(map(str, part.values())) for part in (counts, flag["images"]))
        found = f"it has {have} images in train, val and test, published are {published}"
    verified = "nothing (the md5 differs)" if differ else "counts of the published splits (the md5 differs)"
    doubt = f"{path.name} has the name of a MedMNIST file, but its md5 is not the published one: {found}"
    return Release(verified=verified, doubt=doubt)


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    """Open the six arrays of a MedMNIST file; they are unpacked beside it and memory-mapped."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            for name in (f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")):
                if f"{name}.npy" not in members:
                    found = f"contains no {name}, but {', '.join(members)}"
                    remedy = "Save images and labels of train, val and test in it, named like train_images"
                    raise UserError(str(path), found, remedy)
                with archive.open(f"{name}.npy") as stream:
                    file = spool(stream, path, path.stat().st_size, path.parent)
                    arrays[name] = _map(file, f"{path}: {name}")
    except (*READ_ERRORS, ValueError, SyntaxError, TokenError) as error:
        raise UserError(str(path), f"truncated or not an npz ({error})", "Download it again") from None
    for split in SPLITS:
        images, labels = (f"{split}_{kind}" for kind in ("images", "labels"))
        arrays[images] = _checked_images(arrays[images], f"{path}: {images}")
        _check_labels(arrays[labels], len(arrays[images]), f"{path}: {labels}")
    return arrays


def _map(file: IO[bytes], where: str) -> np.ndarray:
    """Memory-map an npy file.

    Raises:
        ValueError: it is none.
        UserError: it contains Python objects. They are stored as a pickle, which may run code; mapped, its bytes
            would be read as addresses.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    if kind.hasobject:
        remedy = f"Save it with .astype({'str' if where.endswith('labels') else 'np.uint8'})"
        raise UserError(where, "contains Python objects, not numbers or text", remedy)
    if 0 in shape:
        return np.empty(shape, kind)
    return np.memmap(file, kind, "r", file.tell(), shape, "F" if fortran else "C")


def _checked_images(images: np.ndarray, where: str) -> np.ndarray:
    """Images n×H×W or n×H×W×3, of one channel n×H×W; raises a UserError for other arrays."""
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    is_picture = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not is_picture or 0 in images.shape[1:]:
        found = f"contains images of {images.dtype} with shape {images.shape[1:]}"
        remedy = "Use a flag without 3d, or save grey or colour images as uint8, n×H×W or n×H×W×3"
        raise UserError(where, found, remedy)
    return images


def _check_labels(labels: np.ndarray, images: int, where: str) -> None:
    if labels.ndim not in (1, 2):
        raise UserError(where, f"has the shape {labels.shape}", "Save one label per image, n or n×1")
    if labels.ndim == 2 and labels.shape[1] != 1:
        found = f"has {labels.shape[1]} labels per image"
        raise UserError(
            where, found, "Use a file with one label per image: a number or name, not a column per class"
        )
    if labels.dtype.kind not in "biufSU":
        raise UserError(where, f"contains {labels.dtype}", "Save the labels as numbers or text")
    if len(labels) != images:
        remedy = "Save one label per image, in the order of the images"
        raise UserError(where, f"has {len(labels)} labels for {images} images", remedy)


def _read(arrays: dict[str, np.ndarray], name: str) -> Raster:
    split, _, number = name.partition("/")
    return Raster(np.asarray(arrays[f"{split}_images"][int(number)]))
