"""Kermany's retinal OCT images: class folders as in `archive`, with the patient id in each file name."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.sources.archive import class_folders
from medrobust.data.sources.base import Listing, Release
from medrobust.data.sources.fetch import copy_or_download, open_raw
from medrobust.data.sources.labels import normalized

CITATION = "Kermany et al. 2018, Cell 172(5), doi 10.1016/j.cell.2018.02.010"
#: `CNV-1016042-1.jpeg`: class, patient, image number.
NAME = re.compile(r"([A-Za-z]+)-(\d+)-(\d+)\.jpe?g")
#: Release -> number of images per class over all folders.
RELEASES = {
    "84,484 images (Mendeley version 2, Kaggle)": {"CNV": 37455, "DME": 11598, "DRUSEN": 8866, "NORMAL": 26565},
    "109,309 images (Mendeley version 3)": {"CNV": 37455, "DME": 11598, "DRUSEN": 8866, "NORMAL": 51390},
}


download = copy_or_download


def listing(data: DataParams, folder: Path) -> Listing:
    """List the images in class folders with their patients.

    Raises:
        UserError: a file is not named as published, or is in the folder of another class.
    """
    files = open_raw(folder)
    table, left_out, left = class_folders(data, files)
    patients, counts = [], Counter[str]()
    for name in table["id"]:
        path = PurePosixPath(name)
        match = NAME.fullmatch(path.name)
        if match is None:
            remedy = "Use names like CNV-1016042-1.jpeg, or set data.source: archive"
            raise UserError(name, "has no patient id in its name", remedy)
        if normalized(match[1]) != normalized(path.parent.name):
            found = f"is {match[1]} by its name, but in the folder {path.parent.name}"
            raise UserError(name, found, "Move or remove it")
        patients.append(match[2])
        counts[match[1]] += 1
    whole = next((name for name, expected in RELEASES.items() if expected == counts), None)
    release = Release(
        "CC BY 4.0" if whole else "unknown", CITATION, "https://data.mendeley.com/datasets/rscbjbr9sj",
        f"class counts of the release of {whole}" if whole else "file names; not a complete release",
        "" if whole else f"{len(table)} images with names as in OCT2017, but not a complete release of it",
    )  # fmt: skip
    return Listing(table.assign(patient=patients), files.read, release, left_out=left_out, unused=left)
