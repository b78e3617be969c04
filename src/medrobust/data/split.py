"""Deal images to train, validation and test: by patient (default), as published, or at random."""

import zlib
from typing import Any

import numpy as np
import pandas as pd

from medrobust.data.store import Header
from medrobust.errors import UserError
from medrobust.params.data import SplitParams

SPLITS = ("train", "val", "test")


def make_split(manifest: pd.DataFrame, header: Header, split: SplitParams, seed: int) -> pd.DataFrame:
    """Return the split table (`id`, `split`, `label`, `reason`), one row an image in the manifest's order.

    Raises:
        UserError: `split.merge` names an unknown class, the strategy lacks what it needs (patients, published
            folders), a class has too few patients, or a split would be empty.
    """
    label = merge_classes(manifest["label"], header, split)
    table = pd.DataFrame({"id": manifest["id"], "split": "", "label": label, "reason": ""})
    if split.strategy == "patient":
        _by_patient(table, manifest, split, seed)
    elif split.strategy == "published":
        _as_published(table, manifest, split, seed)
    else:
        table["split"] = _shuffled(table["label"].to_numpy(), split.val, split.test, seed)
    _exclude_orphans(table, manifest, split)
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
    """Counts for `metrics/split.json`: images and patients of each split, images by class."""
    metrics: dict[str, Any] = {}
    for name in (*SPLITS, "excluded"):
        part = table["split"] == name
        patients = manifest["patient"][part & (manifest["patient"] != "")]
        counts = table["label"][part].value_counts()
        metrics[name] = {
            "images": int(part.sum()),
            "patients": int(patients.nunique()),
            **{label: int(counts.get(label, 0)) for label in header.classes},
        }
    return metrics


def _by_patient(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams, seed: int) -> None:
    """Whole patients, stratified by class; synthetic images without a known parent are left out."""
    patients = _patient_of(manifest)
    unknown = (patients == "") & (manifest["kind"] == "real")
    if unknown.any():
        found = f"{int(unknown.sum())} real images have no patient id"
        remedy = "Give ids by a manifest, or take split.strategy: random and believe the audit"
        raise UserError("params.yaml: split.strategy: patient", found, remedy)
    deal: dict[str, str] = {}
    own = table["label"].groupby(patients).agg(lambda labels: labels.mode().iloc[0]).drop("", errors="ignore")
    for label in table["label"].unique():
        names = np.sort(own.index[own == label].to_numpy().astype(str))
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        names = names[rng.permutation(len(names))]
        val, test = _patient_shares(label, len(names), split)
        for position, name in enumerate(names):
            deal[name] = "test" if position < test else "val" if position < test + val else "train"
    table["split"] = patients.map(deal).fillna("excluded")
    table.loc[patients == "", "reason"] = "synthetic image of an unknown parent"


def _patient_shares(label: str, count: int, split: SplitParams) -> tuple[int, int]:
    """How many of a class's patients go to validation and test, by the explicit choice if they are few."""
    if count >= 3:
        test = max(1, round(split.test * count))
        return min(max(1, round(split.val * count)), count - test - 1), test
    if split.small_class == "train_only":
        return 0, 0
    if split.small_class == "no_val" and count == 2:
        return 0, 1
    found = f"class {label} has {count} patients, too few for train, val and test"
    remedy = "Set split.small_class: merge (with split.merge), train_only, or no_val (needs two patients)"
    raise UserError("params.yaml: split.small_class", found, remedy)


def _patient_of(manifest: pd.DataFrame) -> pd.Series:
    """Each image's patient; a synthetic image has its parent's."""
    parents = manifest["parent"].map(manifest.set_index("id")["patient"]).fillna("")
    return manifest["patient"].where(manifest["patient"] != "", parents)


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


def _exclude_orphans(table: pd.DataFrame, manifest: pd.DataFrame, split: SplitParams) -> None:
    """Under `patient`, synthetic images stay in train only: elsewhere they are no patients."""
    if split.strategy == "patient":
        misplaced = (manifest["kind"] == "synthetic") & table["split"].isin(["val", "test"])
        table.loc[misplaced, ["split", "reason"]] = ["excluded", "synthetic image of a patient outside train"]
