"""Recover the patient ids of the two public Alzheimer MRI releases, which were published without them.

The earlier release (6,400 slices) has a number in its file names, see docs/data.md. Test files are named
`slice (number).jpg` (`slice.jpg` means number 1). In train, file i of a class with n patients is slice i // n + 1
of number i % n + 2 (n + 1 means 1). The order of the numbers was found by matching neighbouring slices.

The later release (11,519 images) shuffled the same slices and added synthetic ones. `alzheimer_patients.csv.gz`
holds patient and slice by the hash of each real file, found by matching pixels to the earlier release. 182
synthetic images are byte-identical copies of real ones; for them it also holds the number in the real file's name.
"""

import gzip
import re
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from medrobust.data.sources.base import Release

#: Number of patients per class in the release of 6,400 slices; keys are folder names in letters only.
PATIENTS = {"nondemented": 100, "verymilddemented": 70, "milddemented": 28, "moderatedemented": 2}
SHORT = {"nondemented": "N", "verymilddemented": "V", "milddemented": "M", "moderatedemented": "O"}
#: Numbers in slice 26, in the order of the patients of slices 1 to 25, as ranges first-last.
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
    "each of the 6,400 file names gives a different patient and slice",
)
LATER = Release(
    "see its page",
    "Best Alzheimer MRI Dataset, Kaggle lukechugh",
    "https://www.kaggle.com/datasets/lukechugh/best-alzheimer-mri-dataset-99-accuracy",
    "the hashes of all 6,400 real images",
)
#: Number of images in each complete release; subsets are not recognised.
EARLIER_SIZE, LATER_SIZE = 6400, 11519


def by_name(table: pd.DataFrame) -> tuple[pd.DataFrame, Release | None]:
    """Set `patient` and `slice` from `id` and `published_split` if the table lists the release of 6,400 slices.

    Returns:
        The table, and the release, or None if it is another data set.
    """
    if len(table) != EARLIER_SIZE:
        return table, None
    rules = [_name_rule(name, split) for name, split in zip(table["id"], table["published_split"], strict=True)]
    origins = [origin for origin in rules if origin is not None]
    if len(set(origins)) < EARLIER_SIZE:
        return table, None
    patients, slices = zip(*origins, strict=True)
    return table.assign(patient=patients, slice=slices), EARLIER


def by_hash(table: pd.DataFrame) -> tuple[pd.DataFrame, Release | None]:
    """The same for the release of 11,519 images: set `patient`, `slice`, `kind` and `parent` from `sha256`."""
    digests, known = table["sha256"].str[:10], _table()
    if len(table) != LATER_SIZE or len(known.keys() & set(digests)) != EARLIER_SIZE:
        return table, None
    real_image: dict[str, str] = {}  # digest -> id of its real image: as the table marks it, else the first listed
    for name, digest in sorted(zip(table["id"], digests, strict=True), key=lambda row: not _is_marked(*row)):
        if digest in known:
            real_image.setdefault(digest, name)
    is_real = digests.map(real_image) == table["id"]
    patients, slices = ({digest: origin[part] for digest, origin in known.items()} for part in (0, 1))
    return table.assign(
        kind=np.where(is_real, "real", "synthetic"),
        patient=digests.map(patients).where(is_real, ""),
        slice=digests.map(slices).astype("Int64").where(is_real),
        parent=digests.map(real_image).fillna("").mask(is_real, ""),
    ), LATER


def _name_rule(name: str, split: str) -> tuple[str, int] | None:
    """(patient, slice) of a file of the 6,400 release, or None for any other file."""
    *_, folder, file = name.split("/")
    label = "".join(char for char in folder.lower() if char.isalnum())
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


def _patient(label: str, slice_: int, number: int) -> tuple[str, int] | None:
    """(patient, slice) of a number in a slice of a class, or None if the class has no such number."""
    order = _order(label, min(max(slice_, 25), 27))
    return (f"{SHORT[label]}{order.index(number) + 1:03d}", slice_) if number in order else None


@cache
def _order(label: str, slice_: int) -> list[int]:
    """Numbers in a slice, in the order of the patients; 25 stands for slices up to 25, 27 for 27 and later."""
    numbers = list(range(1, PATIENTS[label] + 1))
    if slice_ == 26:
        runs = (run.split("-") for run in SLICE_26[label].split())
        return [number for first, last in runs for number in range(int(first), int(last) + 1)]
    return numbers if slice_ == 25 else sorted(numbers, key=str)


@cache
def _table() -> dict[str, tuple[str, int, str]]:
    """First 10 hex digits of each real image's sha256 -> (patient, slice, number in its file name or "")."""
    content = files("medrobust.data").joinpath("alzheimer_patients.csv.gz").read_bytes()
    rows = (line.split(",") for line in gzip.decompress(content).decode().split())
    return {digest: (patient, int(slice_), "".join(number)) for digest, patient, slice_, *number in rows}


def _is_marked(name: str, digest: str) -> bool:
    """Whether the table marks this one of two byte-identical files as the real image."""
    origin = _table().get(digest)
    number = re.search(r"(\d+)\.\w+$", name)
    return origin is not None and number is not None and number[1] == origin[2]
