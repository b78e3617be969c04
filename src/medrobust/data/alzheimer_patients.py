"""The lost patients of the two public Alzheimer MRI releases.

The earlier release (6,400 slices of 200 patients) numbers the patients in its file names: test files are
`slice (number).jpg` (`slice.jpg` is number 1); in train, file i of a class with n patients is slice i // n + 1
of number i % n + 2 (n + 1 means 1). The number is the patient in slices 1 to 25. From slice 27 it is the place in
the order of text (1, 10, 100, 11, ...), and slice 26 mixes both: matching neighbouring slices shows it, and with
numbers put right the image most like any of the 6,400 is of the same patient without exception.

The later one (11,519 images) renamed and shuffled the same slices and added synthetic ones; `alzheimer.csv.gz`
holds, for the hash of each of its real files, the patient and slice that pixel matching to the earlier release
gave. A byte-identical synthetic copy has its twin's hash: for the 182 such pairs the table also holds the number
in the file name of the one that counts as real.
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
#: The numbers of slice 26 in the order of the patients of slices 1 to 25, first and last of each run.
SLICE_26 = {
    "nondemented": "1-2 100-100 3-58 62-69 59-59 70-79 60-60 80-89 61-61 90-99",
    "verymilddemented": "1-38 44-49 39-39 50-59 40-40 60-69 41-41 70-70 42-43",
    "milddemented": "1-10 19-19 11-11 20-28 12-18",
    "moderatedemented": "1-2",
}
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
        return _patient(label, int(match[1]), int(match[2] or 1)) if match else None
    match = re.fullmatch(r"[A-Za-z]+(\d+)\.jpg", file)
    if not match:
        return None
    patients, number = PATIENTS[label], int(match[1])
    position = number % patients + 2
    return _patient(label, number // patients + 1, 1 if position == patients + 1 else position)


def _patient(label: str, place: int, number: int) -> tuple[str, int] | None:
    """(patient, slice) of a class's number in a slice, or None if the class has no such number."""
    order = _order(label, min(max(place, 25), 27))
    return (f"{SHORT[label]}{order.index(number) + 1:03d}", place) if number in order else None


@cache
def _order(label: str, place: int) -> list[int]:
    """The numbers of a slice (25: and before, 27: and after) in the order of the patients."""
    numbers = list(range(1, PATIENTS[label] + 1))
    if place == 26:
        runs = (run.split("-") for run in SLICE_26[label].split())
        return [number for first, last in runs for number in range(int(first), int(last) + 1)]
    return numbers if place == 25 else sorted(numbers, key=str)


@cache
def _table() -> dict[str, tuple[str, int, str]]:
    """First 10 hex digits of a file's sha256 -> (patient, slice, file number or empty) of each real image."""
    content = files("medrobust.data").joinpath("alzheimer_patients.csv.gz").read_bytes()
    rows = (line.split(",") for line in gzip.decompress(content).decode().split())
    return {digest: (patient, int(place), "".join(number)) for digest, patient, place, *number in rows}


def _by_hash(table: pd.DataFrame) -> pd.DataFrame | None:
    digests = [digest[:10] for digest in table["sha256"]]
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
