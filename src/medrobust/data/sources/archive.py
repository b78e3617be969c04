"""A zip, a tar or a folder of class folders, with or without train, val and test folders around them.

The patients of the two public Alzheimer releases, lost in publication, are recovered: by the file-name rule for
the 6,400-image release, by the hash of each file for the 11,519-image one.
"""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pandas as pd

from medrobust.data.sources.alzheimer import recover_patients
from medrobust.data.sources.base import Listing
from medrobust.data.sources.fetch import check_sha256, local_path
from medrobust.errors import UserError
from medrobust.params.data import DataParams
from medrobust.records import read_json

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif"}
#: Folder names that mean a published split.
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
          "test": "test", "testing": "test"}  # fmt: skip


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy the archive or folder at `data.path`, unchanged, and record its hash.

    Raises:
        UserError: the path is missing, names an unset variable, or the hash is not `data.sha256`.
    """
    path = local_path(data.path)
    if path.is_dir():
        shutil.copytree(path, folder / path.name)
        return {"file": path.name, "sha256": ""}
    shutil.copyfile(path, folder / path.name)
    return {"file": path.name, "sha256": check_sha256(folder / path.name, data.sha256)}


def listing(data: DataParams, folder: Path) -> Listing:
    """The images in class folders, with label, published split and what is known of patients.

    Raises:
        UserError: the archive is damaged, unsafe, or holds no class folder of `data.classes`.
    """
    path = folder / read_json(folder / "source.json")["file"]
    names, read = _open(path)
    known = {_plain(label): label for label in data.classes}
    rows = []
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).suffix.lower() not in IMAGES or "__MACOSX" in parts:
            continue
        label = next((known[_plain(part)] for part in parts[-2::-1] if _plain(part) in known), None)
        if label is None:
            found = f"{name} lies in no folder that is called like a class"
            raise UserError(str(path), found, f"data.classes: {', '.join(data.classes)}")
        split = next((SPLITS[part.lower()] for part in parts[:-1] if part.lower() in SPLITS), "")
        rows.append({"id": name, "label": label, "published_split": split})
    if not rows:
        raise UserError(str(path), "holds no image", f"Known endings: {', '.join(sorted(IMAGES))}")
    table = pd.DataFrame(rows).assign(patient="", slice=None, kind="real", parent="")
    table, release = recover_patients(table, read)
    licence, citation, url = release or ("unknown", "unknown", "")
    return Listing(table, read, licence, citation, url)


def _plain(name: str) -> str:
    """A class or folder name without case, spaces and signs."""
    return "".join(sign for sign in name.lower() if sign.isalnum())


def _open(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The names of the files in an archive or folder, and a way to read each.

    Raises:
        UserError: the archive is truncated or no archive, or holds absolute names, `..` or links.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return names, lambda name: (path / name).read_bytes()
    try:
        if zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            _check_names(path, names)
            return names, archive.read
        with tarfile.open(path) as tar:
            contents = _tar_contents(path, tar)
        _check_tar_end(path)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(str(path), f"truncated or no archive ({error})", "Fetch it again") from None
    _check_names(path, list(contents))
    return list(contents), contents.__getitem__


def _tar_contents(path: Path, tar: tarfile.TarFile) -> dict[str, bytes]:
    """A tar has no index and is read in one go."""
    contents = {}
    for member in tar:
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isfile() else None
        if file is None:
            raise UserError(str(path), f"holds a link or device ({member.name})", "Pack it again with plain files")
        contents[member.name] = file.read()
    return contents


def _check_tar_end(path: Path) -> None:
    """A plain tar ends with 1,024 zero bytes; `tarfile` takes one that is cut off between two files for whole."""
    with path.open("rb") as file:
        plain = file.read(262).endswith(b"ustar")
        file.seek(-min(1024, path.stat().st_size), 2)
        if plain and any(file.read()):
            raise tarfile.ReadError("the end is missing")


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts:
            raise UserError(str(path), f"holds the unsafe name {name!r}", "Fetch it from a source you trust")
