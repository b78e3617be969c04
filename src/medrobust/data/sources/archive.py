"""A zip, a tar or a folder with class folders (optionally inside train, val and test), or with a table.

The patient ids of the two public Alzheimer releases are recovered, see `alzheimer_patients`.
"""

from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json
from medrobust.data import alzheimer_patients as alzheimer
from medrobust.data.images import IMAGE_SUFFIXES
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.files import Files
from medrobust.data.sources.labels import LEFT_OUT, SPLIT_NAMES, LabelMap, match_files, read_label_table
from medrobust.data.sources.unused import IGNORED, NO_ROW, Unused, by_ending, check_not_empty, matching, unused

download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the images with labels, and with splits, patients and parents as far as folders or the table give them.

    Raises:
        UserError: the archive is damaged or unsafe, the table does not match it, or an image has no class folder.
    """
    facts = read_json(folder / "source.json")
    files = open_raw(folder)
    checked = "sha256 of the archive (data.sha256)" if facts.get("sha256") and data.sha256 else "nothing"
    if data.table is not None:
        rows = read_label_table(data, folder, files)
        images, left = find_images(data, files, rows.name)
        table, skipped, without_row = match_files(rows, images, data)
        left += unused(NO_ROW, without_row)
        release = Release(verified=checked)
        return Listing(table, files.read, release, skipped=skipped, left_out=rows.left_out, unused=left)
    table, left_out, left = class_folders(data, files)
    table, recognised = alzheimer.by_name(table)
    release, recover = recognised or Release(verified=checked), None if recognised else alzheimer.by_hash
    return Listing(table, files.read, release, left_out=left_out, recover=recover, unused=left)


def find_images(data: DataParams, files: Files, table: str = "") -> tuple[list[str], list[Unused]]:
    """Names of the images, and of other files: those that `data.ignore` names, and those with other endings.

    `table` is the name of the table in the archive; it counts as neither.

    Raises:
        UserError: the data have no image, or a pattern of `data.ignore` matches no file.
    """
    for pattern in data.ignore:
        if not matching(files.names, [pattern]):
            raise UserError(f"params.yaml: data.ignore: {pattern}", "matches no file", "Fix or remove it")
    ignored = matching(files.names, data.ignore)
    left = {*files.names} - {table, *ignored}
    images = sorted(name for name in left if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
    check_not_empty([*images, *ignored], files, "image", IMAGE_SUFFIXES)
    return images, [*unused(IGNORED, ignored), *by_ending(sorted(left - {*images}))]


def class_folders(data: DataParams, files: Files) -> tuple[pd.DataFrame, dict[str, int], list[Unused]]:
    """List images, labelled by the innermost folder that is named like a class.

    Returns:
        One row per image, the number of images per label that `data.labels` maps to null, and the other files.

    Raises:
        UserError: an image is in no such folder, or for a reason in `find_images`.
    """
    labels, rows, left_out = LabelMap(data), [], Counter[str]()
    images, left = find_images(data, files)
    for name in images:
        *folders, _ = PurePosixPath(name).parts
        known = ((folder, labels.find(folder)) for folder in reversed(folders))
        folder, label = next(((folder, label) for folder, label in known if label is not None), ("", None))
        if label is None:
            found = f"{name} is not in a folder that is named like a class"
            remedy = f"Use the classes {', '.join(data.classes)}, or map the folder in data.labels"
            raise UserError(str(files.path), found, remedy)
        if label == LEFT_OUT:
            left_out[folder] += 1
            continue
        split = next((SPLIT_NAMES[part.lower()] for part in folders if part.lower() in SPLIT_NAMES), "")
        rows.append({"id": name, "label": label, "published_split": split})
    table = pd.DataFrame(rows, columns=["id", "label", "published_split"])
    return table.assign(patient="", slice=None, kind="real", parent=""), dict(left_out), left
