"""MedMNIST v2 and v3: an npz a flag and size, from Zenodo or from a local file.

`medmnist.json` holds what its authors publish of each flag: class names, counts, licence and the md5 of each file.
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
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import bring, expand, fetch_url
from medrobust.data.sources.files import DAMAGED, spool
from medrobust.data.sources.labels import LEFT_OUT, Labels

ZENODO = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
#: `octmnist` has 28 pixels a side, `octmnist_64` 64.
NAME = re.compile(r"([a-z0-9]+?mnist(?:3d)?)(?:_(\d+))?")
SPLITS = ("train", "val", "test")


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Fetch `data.path` (a flag, with `_64`, `_128` or `_224` for larger images), or copy a local npz.

    Raises:
        UserError: no flag and no file, or another md5 than published.
    """
    if data.path is None or Path(expand(data.path)).exists() or data.path.endswith(".npz"):
        return bring(data, folder)
    flag, size = _flag(data.path)
    if flag is None or size not in flag["md5"]:
        known = ", ".join(_flags())
        remedy = f"Known: {known}; sizes: none (28), _64, _128, _224; or give a local npz"
        raise UserError("params.yaml: data.path", f"no flag of MedMNIST: {data.path!r}", remedy)
    fetch_url(ZENODO.format(name=data.path), folder / f"{data.path}.npz", flag["md5"][size])
    return {"file": f"{data.path}.npz", "sha256": file_hash(folder / f"{data.path}.npz")}


def listing(data: DataParams, folder: Path) -> Listing:
    """The images of all three splits in their published order; the data have no patient ids.

    Raises:
        UserError: no MedMNIST npz, volumes, more than one label an image, or labels that are no class.
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
            found = f"{labels.shape[1]} labels an image"
            raise UserError(str(path), found, "A classifier needs one: choose another flag")
        ids = [f"{split}/{number:06d}" for number in range(len(labels))]
        raw = [names[n] if names and n < len(names) else str(n) for n in labels[:, 0].tolist()]
        tables.append(pd.DataFrame({"id": ids, "raw": raw, "published_split": split}))
    table = pd.concat(tables, ignore_index=True)
    table["label"] = Labels(data).column(table["raw"], path.name)
    dropped = table["label"] == LEFT_OUT
    return Listing(
        table[~dropped].drop(columns="raw").assign(patient="", slice=None, kind="real", parent=""),
        partial(_read, arrays),
        licence=flag["licence"] if flag else "unknown",
        citation="Yang et al. 2023, MedMNIST v2, Scientific Data 10:41",
        url="https://medmnist.com",
        verified=_verified(flag, size, path, table),
        left_out={str(name): int(count) for name, count in table["raw"][dropped].value_counts().items()},
    )


def _flags() -> dict[str, Any]:
    content = package_files("medrobust.data.sources").joinpath("medmnist.json").read_text(encoding="utf-8")
    flags: dict[str, Any] = json.loads(content)
    return flags


def _flag(name: str) -> tuple[dict[str, Any] | None, str]:
    """What is published of `octmnist_64`, and "64"; None for a name that is none."""
    match = NAME.fullmatch(name)
    return (_flags().get(match[1]), match[2] or "28") if match else (None, "")


def _verified(flag: dict[str, Any] | None, size: str, path: Path, table: pd.DataFrame) -> str:
    if flag is None:
        return "nothing (the file is not named like a flag of MedMNIST)"
    if flag["md5"].get(size) == file_hash(path, "md5"):
        return "md5 of the published file"
    counts = {split: int((table["published_split"] == split).sum()) for split in SPLITS}
    if counts == flag["images"]:
        return "counts of the published splits (the md5 is another)"
    return f"neither md5 nor counts are the published ones ({counts} for {flag['images']})"


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    """The six arrays of a MedMNIST file, unpacked beside it and mapped, so that none is in memory whole.

    Raises:
        UserError: it is damaged, none of these, or holds volumes.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            for name in (f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")):
                if f"{name}.npy" not in members:
                    found = f"holds no {name}, but {', '.join(members)}"
                    raise UserError(str(path), found, "Give an npz as MedMNIST publishes it")
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = _map(spool(stream, path, path.stat().st_size, path.parent))
    except (*DAMAGED, ValueError) as error:
        raise UserError(str(path), f"truncated or no npz ({error})", "Fetch it again") from None
    images = arrays["train_images"]
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        found = f"holds {images.dtype} of {images.shape[1:]} an image"
        raise UserError(str(path), found, "Grey or colour pictures of uint8 can be read: choose a flag without 3d")
    return arrays


def _map(file: IO[bytes]) -> np.ndarray:
    """Map an npy file without reading it.

    Raises:
        ValueError: it is none.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    return np.memmap(file, kind, "r", file.tell(), shape, "F" if fortran else "C")


def _read(arrays: dict[str, np.ndarray], name: str) -> Raster:
    split, _, number = name.partition("/")
    return Raster(np.asarray(arrays[f"{split}_images"][int(number)]))
