"""A zip, a tar or a folder: of class folders (with or without train, val and test around them), or with a table.

The patients of the two public Alzheimer releases, lost in publication, are recovered: by the file-name rule for
the 6,400-image release, by the hash of each file for the 11,519-image one.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data import alzheimer_patients as alzheimer
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import bring
from medrobust.data.sources.files import Files, open_files
from medrobust.data.sources.labels import LEFT_OUT, SPLITS, Labels, locate, read_rows

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp"}


def download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or fetch the archive or folder at `data.path`, unchanged, and record its hash."""
    return bring(data, folder)


def listing(data: DataParams, folder: Path) -> Listing:
    """The images with their labels, and what folders or the table say of splits, patients and parents.

    Raises:
        UserError: the archive is damaged or unsafe, the table does not fit it, or a folder is no class.
    """
    facts = read_json(folder / "source.json")
    files = open_files(folder / facts["file"])
    checked = "sha256 of the archive, as data.sha256 says" if facts.get("sha256") and data.sha256 else "nothing"
    if data.table is not None:
        rows = read_rows(data, folder, files)
        images = [name for name in files.names if PurePosixPath(name).suffix.lower() in IMAGES]
        table, skipped = locate(rows, images, data)
        return Listing(
            table, files.read, "unknown", "unknown", "", verified=checked, skipped=skipped, left_out=rows.left_out
        )
    table, left_out = class_folders(data, files)
    table, release = alzheimer.by_name(table)
    recover = None if release else alzheimer.by_hash
    release = release or Release("unknown", "unknown", "", checked)
    return Listing(
        table, files.read, release.licence, release.citation, release.url, verified=release.verified,
        left_out=left_out, recover=recover,
    )  # fmt: skip


def class_folders(data: DataParams, files: Files) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row an image, labelled by the innermost folder that is called like a class; and what is left out.

    Raises:
        UserError: an image lies in no such folder, or there is no image.
    """
    labels, rows, left_out = Labels(data), [], dict[str, int]()
    for name in files.names:
        *folders, file = PurePosixPath(name).parts
        if PurePosixPath(file).suffix.lower() not in IMAGES:
            continue
        known = ((folder, labels.find(folder)) for folder in reversed(folders))
        folder, label = next(((folder, label) for folder, label in known if label is not None), ("", None))
        if label is None:
            found = f"{name} lies in no folder that is called like a class"
            remedy = f"data.classes: {', '.join(data.classes)}; map others by data.labels"
            raise UserError(str(files.place), found, remedy)
        if label == LEFT_OUT:
            left_out[folder] = left_out.get(folder, 0) + 1
            continue
        split = next((SPLITS[part.lower()] for part in folders if part.lower() in SPLITS), "")
        rows.append({"id": name, "label": label, "published_split": split})
    if not rows:
        raise UserError(str(files.place), "holds no image", f"Known endings: {', '.join(sorted(IMAGES))}")
    return pd.DataFrame(rows).assign(patient="", slice=None, kind="real", parent=""), left_out
