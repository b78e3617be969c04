"""The lost patients of the two public Alzheimer MRI releases.

The earlier release (6,400 slices of 200 patients) says the patient in its file names: test files are
`slice (patient).jpg` (`slice.jpg` is patient 1); in train, file i of a class with n patients is slice
i // n + 1 of patient i % n + 2 (n + 1 means patient 1). The later one (11,519 images) renamed and shuffled the
same slices and added synthetic ones; `alzheimer.csv.gz` holds, for the hash of each of its real files, the patient
and slice that pixel matching to the earlier release gave. A byte-identical synthetic copy has its twin's hash: for
the 182 such pairs the table also holds the number in the file name of the one that counts as real.
"""

import gzip
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import pandas as pd

#: Patients of each class of the 6,400 release, by the folder's name without signs.
PATIENTS = {"nondemented": 100, "verymilddemented": 70, "milddemented": 28, "moderatedemented": 2}
SHORT = {"nondemented": "N", "verymilddemented": "V", "milddemented": "M", "moderatedemented": "O"}
EARLIER = (
    "ODbL 1.0",
    "Alzheimer's Dataset (4 class of images), Kaggle tourist55",
    "https://www.kaggle.com/datasets",
)
LATER = ("see its page", "Best Alzheimer MRI Dataset, Kaggle lukechugh", "https://www.kaggle.com/datasets")
#: The whole of each release, so that a subset is not taken for it.
EARLIER_SIZE, LATER_SIZE = 6400, 11519

Release = tuple[str, str, str]


def recover_patients(table: pd.DataFrame, read: Callable[[str], bytes]) -> tuple[pd.DataFrame, Release | None]:
    """Fill in `patient`, `slice`, `kind` and `parent` if the images are one of the two releases.

    Args:
        table: a listing with `id`, `label` and `published_split`.
        read: gives the bytes of an image.

    Returns:
        The table, and (licence, citation, url) of the release or None.
    """
    if len(table) == EARLIER_SIZE and (found := _by_name(table)) is not None:
        return found, EARLIER
    if len(table) == LATER_SIZE and (found := _by_hash(table, read)) is not None:
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
def _table() -> dict[str, tuple[str, int, str]]:
    """First 10 hex digits of a file's sha256 -> (patient, slice, file number or empty) of each real image."""
    content = files("medrobust.data.sources").joinpath("alzheimer.csv.gz").read_bytes()
    rows = (line.split(",") for line in gzip.decompress(content).decode().split())
    return {digest: (patient, int(place), "".join(number)) for digest, patient, place, *number in rows}


def _by_hash(table: pd.DataFrame, read: Callable[[str], bytes]) -> pd.DataFrame | None:
    digests = [hashlib.sha256(read(name)).hexdigest()[:10] for name in table["id"]]
    known = _table()
    if sum(digest in known for digest in set(digests)) != EARLIER_SIZE:
        return None
    found = table.copy()
    first: dict[str, str] = {}  # the real image of a digest: the one that the table names, else the first by name
    for name, digest in sorted(zip(table["id"], digests, strict=True), key=lambda row: not _is_named(*row)):
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


def _is_named(name: str, digest: str) -> bool:
    """Whether the table says that of two byte-identical files this one is real."""
    place = _table().get(digest)
    number = re.search(r"(\d+)\.\w+$", name)
    return place is not None and number is not None and number[1] == place[2]
