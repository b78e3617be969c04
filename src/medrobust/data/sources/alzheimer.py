"""The lost patients of the two public Alzheimer MRI releases.

The earlier release (6,400 slices of 200 patients) says the patient in its file names: test files are
`slice (patient).jpg` (`slice.jpg` is patient 1); in train, file i of a class with n patients is slice
i // n + 1 of patient i % n + 2 (n + 1 means patient 1). The later one (11,519 images) renamed and shuffled the
same slices and added synthetic ones; `alzheimer.csv.gz` holds, for the hash of each of its files, the patient
and slice that pixel matching to the earlier release gave. A byte-identical synthetic copy has its twin's hash.
"""

import gzip
import re
from functools import cache
from importlib.resources import files

import pandas as pd

from medrobust.data.sources.base import Release

#: Patients of each class of the 6,400 release, by the folder's name without signs.
PATIENTS = {"nondemented": 100, "verymilddemented": 70, "milddemented": 28, "moderatedemented": 2}
SHORT = {"nondemented": "N", "verymilddemented": "V", "milddemented": "M", "moderatedemented": "O"}
EARLIER = Release(
    "ODbL 1.0",
    "Alzheimer's Dataset (4 class of images), Kaggle tourist55",
    "https://www.kaggle.com/datasets/tourist55/alzheimers-dataset-4-class-of-images",
    "each of the 6,400 file names gives another patient and slice",
)
LATER = Release(
    "see its page",
    "Best Alzheimer MRI Dataset, Kaggle lukechugh",
    "https://www.kaggle.com/datasets/lukechugh/best-alzheimer-mri-dataset-99-accuracy",
    "the hashes of all 6,400 real images",
)
#: The whole of each release, so that a subset is not taken for it.
EARLIER_SIZE, LATER_SIZE = 6400, 11519


def by_name(table: pd.DataFrame) -> tuple[pd.DataFrame, Release | None]:
    """Fill in `patient` and `slice` by the file names if the table lists the release of 6,400 slices.

    Args:
        table: a listing with `id`, `label` and `published_split`.

    Returns:
        The table, and the release or None.
    """
    if len(table) == EARLIER_SIZE and (found := _by_name(table)) is not None:
        return found, EARLIER
    return table, None


def by_hash(table: pd.DataFrame) -> tuple[pd.DataFrame, Release | None]:
    """Fill in `patient`, `slice`, `kind` and `parent` by `sha256` if the table lists the 11,519 images.

    Returns:
        The table, and the release or None.
    """
    if len(table) == LATER_SIZE and (found := _by_hash(table)) is not None:
        return found, LATER
    return table, None


def _by_name(table: pd.DataFrame) -> pd.DataFrame | None:
    places = [_name_rule(name, split) for name, split in zip(table["id"], table["published_split"], strict=True)]
    if any(place is None for place in places):
        return None
    found = table.copy()
    found["patient"] = [place[0] for place in places if place]
    found["slice"] = [place[1] for place in places if place]
    return found if not found.duplicated(["patient", "slice"]).any() else None


def _name_rule(name: str, split: str) -> tuple[str, int] | None:
    """(patient, slice) of a file of the 6,400 release, or None if it is none."""
    *_, folder, file = name.split("/")
    label = "".join(sign for sign in folder.lower() if sign.isalnum())
    if label not in PATIENTS:
        return None
    if split == "test":
        match = re.fullmatch(r"(\d+)(?: \((\d+)\))?\.jpg", file)
        return (f"{SHORT[label]}{int(match[2] or 1):03d}", int(match[1])) if match else None
    match = re.fullmatch(r"[A-Za-z]+(\d+)\.jpg", file)
    if not match:
        return None
    patients, number = PATIENTS[label], int(match[1])
    position = number % patients + 2
    return f"{SHORT[label]}{1 if position == patients + 1 else position:03d}", number // patients + 1


@cache
def _table() -> dict[str, tuple[str, int]]:
    """First 10 hex digits of a file's sha256 -> (patient, slice) of each real image."""
    content = files("medrobust.data.sources").joinpath("alzheimer.csv.gz").read_bytes()
    rows = (line.split(",") for line in gzip.decompress(content).decode().split())
    return {digest: (patient, int(number)) for digest, patient, number in rows}


def _by_hash(table: pd.DataFrame) -> pd.DataFrame | None:
    digests = [digest[:10] for digest in table["sha256"]]
    known = _table()
    if sum(digest in known for digest in set(digests)) != EARLIER_SIZE:
        return None
    found = table.copy()
    first: dict[str, str] = {}  # the real image of a digest: in test, or the first in train's order of names
    for name, digest, _ in sorted(
        zip(table["id"], digests, table["published_split"], strict=True), key=lambda row: row[2] != "test"
    ):
        if digest in known:
            first.setdefault(digest, name)
    own = [first.get(digest) == name for name, digest in zip(table["id"], digests, strict=True)]
    found["kind"] = ["real" if real else "synthetic" for real in own]
    found["patient"] = [known[digest][0] if real else "" for digest, real in zip(digests, own, strict=True)]
    found["slice"] = [known[digest][1] if real else pd.NA for digest, real in zip(digests, own, strict=True)]
    found["parent"] = [
        first[digest] if digest in known and not real else "" for digest, real in zip(digests, own, strict=True)
    ]
    return found
