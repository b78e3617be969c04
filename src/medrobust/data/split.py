"""Deal images to train, validation and test: by patient (default), in folds of patients, as published, at random.

`published` and `random` deal as the literature does, its leaks included, so that the audit can show them.
"""

import zlib
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import SplitParams
from medrobust.data.store import Header

SPLITS = ("train", "val", "test")
#: A line of descent longer than this must be a circle.
GENERATIONS = 100


def make_split(manifest: pd.DataFrame, header: Header, split: SplitParams, seed: int) -> pd.DataFrame:
    """Return the split table (`id`, `split`, `label`, `reason`), one row an image in the manifest's order.

    Raises:
        UserError: `split.merge` names an unknown class, the strategy lacks what it needs (patients, published
            folders), a class has too few patients, or a split would be empty.
    """
    label = merge_classes(manifest["label"], header, split)
    table = pd.DataFrame({"id": manifest["id"], "split": "", "label": label, "reason": ""})
    if split.strategy in ("patient", "kfold"):
        _by_patient(table, manifest, split, seed)
    elif split.strategy == "published":
        _as_published(table, manifest, split, seed)
    else:
        table["split"] = _shuffled(table["label"].to_numpy(), split.val, split.test, seed)
    for name in SPLITS:
        if not (table["split"] == name).any():
            raise UserError("params.yaml: split", f"{name} is empty", "Change split.val or split.test")
    return table


def merge_classes(labels: pd.Series, header: Header, split: SplitParams) -> pd.Series:
    """Replace the labels that `split.merge` names (with `small_class: merge`) by their new class.

    Raises:
        UserError: a name in `split.merge` is no class.
    """
    for name in (*split.merge, *split.merge.values()):
        if name not in header.classes:
            raise UserError("params.yaml: split.merge", f"no class {name!r}", f"Known: {header.classes}")
    return labels.replace(split.merge) if split.small_class == "merge" else labels.copy()


def split_metrics(table: pd.DataFrame, manifest: pd.DataFrame, header: Header) -> dict[str, Any]:
    """Counts for `metrics/split.json`: images and patients of each split, images by class, patients by class.

    Patients of a class are those who have an image of it; an image without a patient counts for none.
    """
    metrics: dict[str, Any] = {}
    for name in (*SPLITS, "excluded"):
        part = table["split"] == name
        patients = manifest["patient"][part & (manifest["patient"] != "")]
        counts = table["label"][part].value_counts()
        people = patients.groupby(table["label"]).nunique()
        metrics[name] = {
            "images": int(part.sum()),
            "patients": int(patients.nunique()),
            **{label: int(counts.get(label, 0)) for label in header.classes},
            "patients_by_class": {label: int(people.get(label, 0)) for label in header.classes},
        }
    return metrics


def _by_patient(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """Whole patients, stratified by class; synthetic images in train only, and only beside their parent."""
    patients, synthetic = patient_of(manifest), manifest["kind"] == "synthetic"
    unknown = (patients == "") & ~synthetic
    if unknown.any():
        found = f"{int(unknown.sum())} real images have no patient id"
        remedy = (
            "Name a table of your images with a column of patients in data.table (docs/data.md, Tables), "
            "or take split.strategy: random and believe the audit"
        )
        raise UserError(f"params.yaml: split.strategy: {split.strategy}", found, remedy)
    deal: dict[str, str] = {}
    own = table["label"][~synthetic].groupby(patients[~synthetic]).agg(lambda labels: labels.mode().iloc[0])
    shares = _kfold_shares if split.strategy == "kfold" else _patient_shares
    for label in table["label"].unique():
        names = np.sort(own.index[own == label].to_numpy().astype(str))
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        names = names[rng.permutation(len(names))]
        start, test, val = shares(label, len(names), split)
        for position, name in enumerate(np.roll(names, -start)):
            deal[name] = "test" if position < test else "val" if position < test + val else "train"
    table["split"] = patients.map(deal).fillna("excluded")
    misplaced = synthetic & (table["split"] != "train")
    table.loc[misplaced, ["split", "reason"]] = ["excluded", "synthetic image of a patient outside train"]
    orphans = synthetic & (patients == "")
    taken = split.unknown_parent == "train"
    choice = ["train", ""] if taken else ["excluded", "synthetic image of an unknown parent"]
    table.loc[orphans, ["split", "reason"]] = choice


def _patient_shares(label: str, count: int, split: SplitParams) -> tuple[int, int, int]:
    """Where a class's test patients start, how many they are, and how many follow them in validation.

    With three patients or more, each split has one at least, whatever the shares are.
    """
    if count >= 3:
        test = min(max(1, round(split.test * count)), count - 2)
        return 0, test, min(max(1, round(split.val * count)), count - test - 1)
    return 0, *_small_shares(label, count, 1, split, "train, val and test")


def _kfold_shares(label: str, count: int, split: SplitParams) -> tuple[int, int, int]:
    """The same for one fold: the patients stand in a ring, and each stretch of it is in test in one fold."""
    start, end = (fold * count // split.folds for fold in (split.fold, split.fold + 1))
    others = count - (end - start)
    if count >= split.folds and others >= 2:
        return start, end - start, min(max(1, round(split.val * count)), others - 1)
    # Some folds have no test patient of this class, so that their figures mean something else.
    return start, *_small_shares(label, count, end - start, split, f"{split.folds} folds")


def _small_shares(label: str, count: int, test: int, split: SplitParams, goal: str) -> tuple[int, int]:
    """How many patients of a small class go to test and validation, by the explicit choice."""
    if split.small_class == "train_only":
        return 0, 0
    if split.small_class == "no_val" and count >= 2:
        return test, 0
    remedy = "Set split.small_class: merge (with split.merge), train_only, or no_val (needs two patients)"
    found = f"class {label} has {count} patients, too few for {goal}"
    raise UserError("params.yaml: split.small_class", found, remedy)


def patient_of(manifest: pd.DataFrame) -> pd.Series:
    """Each image's patient, empty if unknown; a synthetic image has that of the image it descends from.

    Raises:
        UserError: an image is its own ancestor.
    """
    patients, parents = manifest["patient"].set_axis(manifest["id"]), manifest["parent"].set_axis(manifest["id"])
    found, ancestor = manifest["patient"], manifest["parent"]
    for _ in range(GENERATIONS):
        found = found.where(found != "", ancestor.map(patients).fillna(""))
        ancestor = ancestor.map(parents).fillna("")
        if not ((found == "") & (ancestor != "")).any():
            return found
    name = manifest["id"][(found == "") & (ancestor != "")].iloc[0]
    raise UserError("data/prepared/manifest.csv", f"{name} descends from itself", "Mend the column `parent`")


def _as_published(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """The folders of the publication; where it has no validation folder, a share of its train images."""
    published = manifest["published_split"]
    if not {"train", "test"} <= set(published):
        remedy = "Choose patient or random; only an archive with train and test folders has this"
        raise UserError(
            "params.yaml: split.strategy: published", "the data have no train and test folders", remedy
        )
    table["split"] = published.where(published != "", "excluded")
    if not (published == "val").any():
        train = np.flatnonzero(published == "train")
        dealt = _shuffled(table["label"].to_numpy()[train], split.val, 0.0, seed)
        table.loc[table.index[train], "split"] = dealt


def _shuffled(labels: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Images at random, the same shares of each class."""
    dealt = np.full(len(labels), "train", dtype=object)
    rng = np.random.default_rng(seed)
    for label in sorted(set(labels)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test, n_val = round(test * len(rows)), round(val * len(rows))
        dealt[rows[:n_test]] = "test"
        dealt[rows[n_test : n_test + n_val]] = "val"
    return dealt
