"""Assign images to train, validation and test: by patient (default), in folds, by group, as published, at random.

With `split.counts`, some images of train are in the split `unlabelled`, which only semi-supervised training reads.
`published` and `random` reproduce splits of the literature, leaks included, so that the audit can show them.
"""

import zlib
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import CountsParams, SplitParams
from medrobust.data.store import MANIFEST_COLUMNS, SPLITS, Header

#: A chain of parents longer than this must be a cycle.
MAX_GENERATIONS = 100
#: The split of images whose labels no training reads.
UNLABELLED = "unlabelled"
#: Images that a message names.
NAMED = 5


def make_split(manifest: pd.DataFrame, header: Header, split: SplitParams, seed: int) -> pd.DataFrame:
    """Return the split table (`id`, `split`, `label`, `reason`), one row per image in the order of the manifest.

    Raises:
        UserError: `split.merge` names an unknown class, the data lack what the strategy needs (patients, published
            folders or folds), a class has too few patients or images, or a split would be empty.
    """
    label = _merge_classes(manifest["label"], header, split)
    table = pd.DataFrame({"id": manifest["id"], "split": "", "label": label, "reason": ""})
    if split.strategy in ("patient", "kfold", "held_out"):
        _by_patient(table, manifest, split, seed)
    elif split.strategy == "published":
        _as_published(table, manifest, split, seed)
    elif split.strategy == "published_folds":
        _in_published_folds(table, manifest, split, seed)
    else:
        table["split"] = _random_split(table["label"].to_numpy(), split.val, split.test, seed)
    if split.train_share < 1:
        _keep_share(table, manifest, split.train_share, seed)
    if split.per_patient is not None:
        _thin_out(table, manifest, split.per_patient)
    if split.counts is not None:
        _draw(table, split.counts, seed)
    for name in SPLITS:
        if not (table["split"] == name).any():
            raise UserError("params.yaml: split", f"{name} is empty", "Change split.val or split.test")
    return table


def _merge_classes(labels: pd.Series, header: Header, split: SplitParams) -> pd.Series:
    """Replace the labels that `split.merge` names by their new class (with `small_class: merge`)."""
    for name in (*split.merge, *split.merge.values()):
        if name not in header.classes:
            raise UserError("params.yaml: split.merge", f"no class {name!r}", f"Use classes of {header.classes}")
    return labels.replace(split.merge) if split.small_class == "merge" else labels.copy()


def split_metrics(table: pd.DataFrame, manifest: pd.DataFrame, header: Header) -> dict[str, Any]:
    """Counts for `metrics/split.json`: images and patients per split and per class.

    A patient counts for each class of which the patient has an image. Unknown patients are not counted.
    """
    metrics: dict[str, Any] = {}
    drawn = [UNLABELLED] if (table["split"] == UNLABELLED).any() else []
    for name in (*SPLITS, *drawn, "excluded"):
        part = table["split"] == name
        patients = manifest["patient"][part & (manifest["patient"] != "")]
        counts = table["label"][part].value_counts()
        patients_of_class = patients.groupby(table["label"]).nunique()
        metrics[name] = {
            "images": int(part.sum()),
            "patients": int(patients.nunique()),
            **{label: int(counts.get(label, 0)) for label in header.classes},
            "patients_by_class": {label: int(patients_of_class.get(label, 0)) for label in header.classes},
        }
    return metrics


def _by_patient(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """Assign whole patients, stratified by class; synthetic images go to train only, beside their parent."""
    patients, synthetic = patient_of(manifest), manifest["kind"] == "synthetic"
    unknown = (patients == "") & ~synthetic
    if unknown.any() and (split.unknown_patient == "fail" or not patients[~synthetic].any()):
        raise _no_patients(manifest["id"][unknown], int((~synthetic).sum()), split)
    known = ~synthetic & ~unknown
    majority = table["label"][known].groupby(patients[known]).agg(lambda labels: labels.mode().iloc[0])
    held = _held_out(manifest, split, patients, known) if split.strategy == "held_out" else set()
    majority = majority.drop(list(held))
    assignment = dict.fromkeys(held, "test")
    shares = {"held_out": _held_out_shares, "kfold": _kfold_shares, "patient": _patient_shares}[split.strategy]
    for label in table["label"].unique():
        names = np.sort(majority.index[majority == label].to_numpy().astype(str))
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        names = names[rng.permutation(len(names))]
        start, test, val = shares(label, len(names), split)
        for position, name in enumerate(np.roll(names, -start)):
            assignment[name] = "test" if position < test else "val" if position < test + val else "train"
    table["split"] = patients.map(assignment).fillna("excluded")
    misplaced = synthetic & (table["split"] != "train")
    table.loc[misplaced, ["split", "reason"]] = ["excluded", "synthetic image of a patient outside train"]
    table.loc[unknown, "reason"] = "no patient id"
    orphans = synthetic & (patients == "")
    excluded = ["excluded", "synthetic image of an unknown parent"]
    table.loc[orphans, ["split", "reason"]] = ["train", ""] if split.unknown_parent == "train" else excluded


def _no_patients(ids: pd.Series, real: int, split: SplitParams) -> UserError:
    """The error for real images without a patient id."""
    found = f"{len(ids)} of {real} real images have no patient id"
    table = "Set data.table to a table of your images with a patient column (docs/data.md, Tables)"
    if len(ids) < real:
        found += f", the first are {', '.join(ids.iloc[:NAMED])}"
        table = "Add their patients to the table, or set split.unknown_patient: exclude to leave them out"
    remedy = f"{table}, or set split.strategy: random and read the audit's verdict with care"
    return UserError(f"params.yaml: split.strategy: {split.strategy}", found, remedy)


def _held_out(manifest: pd.DataFrame, split: SplitParams, patients: pd.Series, known: pd.Series) -> set[str]:
    """The patients of the group values that are held out, all of whom are tested."""
    ((name, values),) = split.held_out.items()
    where = f"params.yaml: split.held_out.{name}"
    if name not in manifest or name in MANIFEST_COLUMNS:
        groups = ", ".join(map(str, manifest.columns.difference(MANIFEST_COLUMNS))) or "none"
        raise UserError(where, "the data have no such group", f"Use one of data.groups: {groups}")
    present = manifest[name][known]
    if unknown := [value for value in values if value not in set(present)]:
        named = ", ".join(sorted(set(present) - {""})) or "none"
        raise UserError(where, f"no patient has {unknown[0]!r}", f"Use values of the data: {named}")
    chosen = present.isin(values)
    held = {*patients[known][chosen]}
    if mixed := sorted(held & {*patients[known][~chosen]}):
        found = f"patient {mixed[0]} also has images outside ({len(mixed)} such patients)"
        raise UserError(where, found, "Fix the data, or hold out all values of these patients")
    return held


def _held_out_shares(label: str, count: int, split: SplitParams) -> tuple[int, int, int]:
    """Like `_patient_shares`, for the patients that are not held out: none is tested."""
    if count >= 2:
        return 0, 0, min(max(1, round(split.val * count)), count - 1)
    return 0, *_small_shares(label, count, 0, split, "train and val")


def _patient_shares(label: str, count: int, split: SplitParams) -> tuple[int, int, int]:
    """Start index of a class's test patients, their number, and the number of validation patients after them."""
    if count >= 3:  # every split gets at least one, whatever the shares are
        test = min(max(1, round(split.test * count)), count - 2)
        return 0, test, min(max(1, round(split.val * count)), count - test - 1)
    return 0, *_small_shares(label, count, 1, split, "train, val and test")


def _kfold_shares(label: str, count: int, split: SplitParams) -> tuple[int, int, int]:
    """Like `_patient_shares`, for one fold. Patients form a ring; each segment of it is the test set of a fold."""
    start, end = (fold * count // split.folds for fold in (split.fold, split.fold + 1))
    others = count - (end - start)
    if count >= split.folds and others >= 2:
        return start, end - start, min(max(1, round(split.val * count)), others - 1)
    # Some folds have no test patient of this class, so their metrics average over fewer classes.
    return start, *_small_shares(label, count, end - start, split, f"split.folds: {split.folds}")


def _small_shares(label: str, count: int, test: int, split: SplitParams, purpose: str) -> tuple[int, int]:
    """Numbers of test and validation patients of a small class, according to `split.small_class`."""
    if split.small_class == "train_only":
        return 0, 0
    if split.small_class == "no_val" and count >= 2:
        return test, 0
    folds = "another split.folds, or " if split.strategy == "kfold" else ""
    remedy = f"Set {folds}split.small_class: merge (with split.merge), train_only, or no_val (needs two patients)"
    found = f"class {label} has {count} patients, too few for {purpose}"
    raise UserError("params.yaml: split.small_class", found, remedy)


def patient_of(manifest: pd.DataFrame) -> pd.Series:
    """Patient of each image, empty if unknown; a synthetic image has the patient of the image it was made from.

    Raises:
        UserError: an image is its own ancestor.
    """
    patients, parents = manifest["patient"].set_axis(manifest["id"]), manifest["parent"].set_axis(manifest["id"])
    patient, ancestor = manifest["patient"], manifest["parent"]
    for _ in range(MAX_GENERATIONS):
        patient = patient.where(patient != "", ancestor.map(patients).fillna(""))
        ancestor = ancestor.map(parents).fillna("")
        if not ((patient == "") & (ancestor != "")).any():
            return patient
    name = manifest["id"][(patient == "") & (ancestor != "")].iloc[0]
    raise UserError("data/prepared/manifest.csv", f"{name} is its own ancestor", "Fix the column `parent`")


def _thin_out(table: pd.DataFrame, manifest: pd.DataFrame, count: int) -> None:
    """Keep `count` real images per patient, evenly spaced by slice and then id; exclude the others.

    Synthetic images of an excluded image, and images without a patient id, stay as they are.
    """
    order = pd.DataFrame({"patient": patient_of(manifest), "slice": manifest["slice"], "id": manifest["id"]})
    real = order[(manifest["kind"] == "real") & (order["patient"] != "") & (table["split"] != "excluded")]
    for _, rows in real.sort_values(["slice", "id"]).groupby("patient"):
        if len(rows) > count:
            kept = rows.index[(np.arange(count) * len(rows)) // count]
            dropped = rows.index.difference(kept)
            table.loc[dropped, ["split", "reason"]] = ["excluded", f"beyond {count} images of this patient"]


def _as_published(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """Use the published folders; without a validation folder, take a random share of the train images."""
    published = manifest["published_split"]
    if not {"train", "test"} <= set(published):
        remedy = "Set it to patient or random; published needs data with train and test folders"
        found = "the data have no train and test folders"
        raise UserError("params.yaml: split.strategy: published", found, remedy)
    table["split"] = published.where(published != "", "excluded")
    if not (published == "val").any():
        train = np.flatnonzero(published == "train")
        assigned = _random_split(table["label"].to_numpy()[train], split.val, 0.0, seed)
        table.loc[table.index[train], "split"] = assigned


def _in_published_folds(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """Test on one of the publisher's folds; validation has whole patients of the others.

    Validation has an equal share of each class. An image without a patient id counts as a patient of its own.
    """
    folds = sorted({name for name in manifest["published_split"] if name.isdigit()}, key=int)
    if split.fold >= len(folds):
        found = f"fold {split.fold}, but the data have {len(folds)} published folds"
        remedy = "Set split.fold from 0 on, or split.strategy: kfold, which makes folds of its own"
        raise UserError("params.yaml: split.strategy: published_folds", found, remedy)
    is_test = manifest["published_split"] == folds[split.fold]
    patients = patient_of(manifest).where(lambda names: names != "", manifest["id"])
    table["split"] = np.where(is_test, "test", "train")
    others = table["label"][~is_test].groupby(patients[~is_test]).agg(lambda labels: labels.mode().iloc[0])
    for label in sorted(set(others)):
        names = np.sort(others.index[others == label].to_numpy().astype(str))
        drawn = np.random.default_rng([seed, zlib.crc32(label.encode())]).permutation(len(names))
        val = names[drawn[: max(1, round(split.val * len(names)))]]
        table.loc[~is_test & patients.isin(val), "split"] = "val"


def _keep_share(table: pd.DataFrame, manifest: pd.DataFrame, share: float, seed: int) -> None:
    """Keep a share of the training patients of each class, at least one; exclude the others.

    The patients of a smaller share are among those of a larger one. A patient with images of several classes
    counts for the most frequent one; an image without a patient id counts as a patient of its own.
    """
    patients = patient_of(manifest).where(lambda names: names != "", manifest["id"])
    train = table["split"] == "train"
    classes = table["label"][train].groupby(patients[train]).agg(lambda labels: labels.mode().iloc[0])
    for label in sorted(set(classes)):
        names = np.sort(classes.index[classes == label].to_numpy().astype(str))
        drawn = np.random.default_rng([seed, 5, zlib.crc32(label.encode())]).permutation(len(names))
        beyond = names[drawn[max(1, round(share * len(names))) :]]
        table.loc[train & patients.isin(beyond), ["split", "reason"]] = ["excluded", "beyond split.train_share"]


def _draw(table: pd.DataFrame, counts: CountsParams, seed: int) -> None:
    """Keep so many images of each split, drawn in equal numbers per class; exclude the others.

    If a number is not a multiple of the classes, the first classes have one more.
    """
    wanted = {"train": counts.train + counts.unlabelled, "val": counts.val, "test": counts.test}
    classes, rng = sorted(set(table["label"])), np.random.default_rng([seed, 4])
    for name, total in wanted.items():
        for number, label in enumerate(classes):
            rows = np.flatnonzero((table["split"] == name) & (table["label"] == label))
            count, labelled = (_equal_part(each, number, len(classes)) for each in (total, getattr(counts, name)))
            if len(rows) < count:
                found = f"{count} images of {label} for {name}, which has {len(rows)}"
                raise UserError("params.yaml: split.counts", found, "Set smaller numbers, or other shares")
            rows = rng.permutation(rows)
            table.loc[rows[count:], ["split", "reason"]] = ["excluded", "beyond split.counts"]
            table.loc[rows[labelled:count], "split"] = UNLABELLED


def _equal_part(total: int, number: int, parts: int) -> int:
    """Size of the part with this number of `total`, divided into equal parts."""
    return total // parts + (number < total % parts)


def _random_split(labels: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Assign images at random, with equal shares per class."""
    assigned = np.full(len(labels), "train", dtype=object)
    rng = np.random.default_rng(seed)
    for label in sorted(set(labels)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test, n_val = round(test * len(rows)), round(val * len(rows))
        assigned[rows[:n_test]] = "test"
        assigned[rows[n_test : n_test + n_val]] = "val"
    return assigned
