"""Audit of a split: patients, duplicates, synthetic images, and a 1-nearest-neighbour baseline (docs/data.md)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.neighbours import NearestNeighbours, SearchResult, search, thumbnails
from medrobust.data.audit.pairs import copy_pairs, equal_pixels, side_by_side
from medrobust.data.audit.suspects import look_alikes, suspect_table, suspected_patients
from medrobust.data.audit.verdict import decide_verdict
from medrobust.data.split import UNLABELLED, patient_of
from medrobust.data.store import SPLITS, ImageStore


@dataclass(frozen=True)
class Audit:
    """Result of an audit."""

    metrics: dict[str, Any]  # for `metrics/audit.json`, the verdict first
    pairs: pd.DataFrame  # copies across splits, with two labels or of two patients, see `pairs.copy_pairs`
    nearest: pd.DataFrame  # nearest train or val image per test image, in the same columns, most similar first
    suspects: pd.DataFrame  # one row per image of a suspected patient, see `suspects.py`
    closeness: pd.DataFrame  # share of test images by similarity to the pool, see `_closeness`


def audit_split(store: ImageStore, split: pd.DataFrame, params: AuditParams) -> Audit:
    """Compare all pairs of images that the split uses; `params` holds the thresholds, as correlations."""
    # A test image that is also among the unlabelled ones leaks as from train.
    of_training = split["split"].replace(UNLABELLED, "train")
    table = store.manifest.assign(split=of_training, label=split["label"], row=np.arange(len(split)))
    table["owner"], table["copy"] = patient_of(table), equal_pixels(store.images)
    images = table[table["split"].isin(SPLITS)].reset_index(drop=True)
    patients = pd.factorize(images["owner"].where(images["owner"] != ""))[0]
    is_test = (images["split"] == "test").to_numpy()
    vectors = thumbnails(store.images, images["row"].to_numpy())
    result = search(vectors, patients, is_test, params.near_duplicate, params.same_patient)
    pairs = copy_pairs(images, result)
    same_person, clusters = look_alikes(images, result), suspected_patients(images, result)
    look_alike = suspect_table(images, same_person, "look-alike patients")
    suspected = suspect_table(images, clusters, "images without a patient id")
    metrics: dict[str, Any] = {
        **_sizes(images),
        **_patient_overlap(images),
        **_duplicates(images, pairs, result, params.near_duplicate),
        **_synthetic_images(table, images),
        "look_alike_ids": look_alike["patient"].nunique(),
        **_suspect_counts("look_alike_patients", look_alike),
        **_suspect_counts("suspected_patients", suspected),
        **_neighbour_accuracy(images, result.in_pool, result.in_pool_other_patients),
        **_suspected_neighbour_accuracy(images, vectors, clusters, result.in_pool),
        "patients_by_class": _patients_by_class(images, store.header.classes),
        "classes_not_in_test": _classes_not_in_test(images, store.header.classes),
    }
    verdict, reasons = decide_verdict(metrics)
    in_pool = result.in_pool
    test = np.flatnonzero(in_pool.index >= 0)
    nearest = side_by_side(images, test, in_pool.index[test], in_pool.similarity[test]).assign(kind="nearest")
    return Audit(
        {"verdict": verdict, "reasons": reasons, **metrics},
        pairs,
        nearest.sort_values("similarity", ascending=False, ignore_index=True),
        pd.concat([look_alike, suspected], ignore_index=True),
        _closeness(in_pool, result.in_pool_other_patients),
    )


def _sizes(images: pd.DataFrame) -> dict[str, int]:
    """Totals of images and patients, of which the other checks count parts."""
    synthetic = images["kind"] == "synthetic"
    return {
        "images": len(images),
        "real_images": int((~synthetic).sum()),
        "synthetic_images": int(synthetic.sum()),
        **{f"{name}_images": int((images["split"] == name).sum()) for name in ("test", "val")},
        "patients": images["owner"][images["owner"] != ""].nunique(),
    }


def _patient_overlap(images: pd.DataFrame) -> dict[str, Any]:
    """Count patients in two splits. Synthetic train images do not count here, see `_synthetic_images`."""
    real = images[images["kind"] != "synthetic"]
    test = set(images["owner"][images["split"] == "test"]) - {""}
    train, val = (set(real["owner"][real["split"] == name]) - {""} for name in ("train", "val"))
    return {
        "test_patients": len(test),
        "test_patients_in_train": len(test & train),
        "test_patients_in_val": len(test & val),
        "val_patients": len(val),
        "val_patients_in_train": len(val & train),
        "real_images_without_patient": int((real["owner"] == "").sum()),
    }


def _duplicates(images: pd.DataFrame, pairs: pd.DataFrame, result: SearchResult, near: float) -> dict[str, Any]:
    """Count exact copies (equal pixels) and near copies, which have other pixels.

    An image of test or validation counts once, however many copies it has, and as an exact copy if it has one.
    """
    copy, split = images["copy"], images["split"]
    exact_test = (split == "test") & copy.isin(copy[split != "test"])
    exact_val = (split == "val") & copy.isin(copy[split == "train"])
    of_group = images.groupby("copy")
    size, by_split = of_group.size().to_numpy(), images.groupby(["copy", "split"]).size().to_numpy()
    others, found = pairs[pairs["kind"] == "near copy"], result.near_duplicates
    near_val = others["row"][(others["split"] == "val") & (others["other_split"] == "train")]
    return {
        "test_images_with_exact_copy": int(exact_test.sum()),
        "test_images_with_near_copy": int(((result.in_pool.similarity >= near) & ~exact_test).sum()),
        "val_images_with_exact_copy": int(exact_val.sum()),
        "val_images_with_near_copy": int((images["row"].isin(near_val) & ~exact_val).sum()),
        "exact_pairs_across_splits": int(((size**2).sum() - (by_split**2).sum()) // 2),
        "near_pairs": found.count - int((copy.to_numpy()[found.first] == copy.to_numpy()[found.second]).sum()),
        "near_pairs_across_splits": int((others["split"] != others["other_split"]).sum()),
        "near_pairs_with_two_labels": int((others["label"] != others["other_label"]).sum()),
        "images_with_two_labels": int((of_group["label"].transform("nunique") > 1).sum()),
    }


def _synthetic_images(table: pd.DataFrame, images: pd.DataFrame) -> dict[str, Any]:
    """Count synthetic images by origin and split; `table` lists all images, `images` those in the split."""
    real = table[table["kind"] != "synthetic"]
    copies = table["kind"].eq("synthetic") & table["copy"].isin(real["copy"])
    synthetic = images[images["kind"] == "synthetic"]
    tested = set(images["owner"][(images["split"] == "test") & (images["kind"] != "synthetic")]) - {""}
    outside = synthetic[synthetic["split"] != "test"]
    return {
        "synthetic_exact_copies": int(copies.sum()),
        "synthetic_children_of_test_patients": int(outside["owner"].isin(tested).sum()),
        "synthetic_of_unknown_parent": int((synthetic["owner"] == "").sum()),
        "synthetic_test_images": int((synthetic["split"] == "test").sum()),
    }


def _suspect_counts(name: str, suspects: pd.DataFrame) -> dict[str, Any]:
    """Count suspects, those both in test and elsewhere, and their test images."""
    tested = suspects["split"].eq("test").groupby(suspects["suspect"]).transform("any")
    elsewhere = suspects["split"].ne("test").groupby(suspects["suspect"]).transform("any")
    across = suspects[tested & elsewhere]
    return {
        name: int(suspects["suspect"].nunique()),
        f"{name}_across_test": int(across["suspect"].nunique()),
        f"test_images_of_{name}_across": int((across["split"] == "test").sum()),
    }


def _neighbour_accuracy(
    images: pd.DataFrame, all_patients: NearestNeighbours, other_patients: NearestNeighbours
) -> dict[str, Any]:
    """Accuracy of the 1-nearest-neighbour with and without images of the test patient, and the gap."""
    is_test = (images["split"] == "test").to_numpy()
    accuracy, without = (_accuracy(images, nearest, is_test) for nearest in (all_patients, other_patients))
    return {
        "nn_accuracy": accuracy,
        "nn_accuracy_without_own_patient": without,
        "nn_gap": None if accuracy is None or without is None else accuracy - without,
        "majority_accuracy": float(images["label"][is_test].value_counts(normalize=True).iloc[0]),
    }


def _suspected_neighbour_accuracy(
    images: pd.DataFrame, vectors: np.ndarray, clusters: np.ndarray, all_patients: NearestNeighbours
) -> dict[str, Any]:
    """The same for test images without a patient id, with the suspected patient in place of the true one."""
    is_test = (images["split"] == "test").to_numpy()
    without_id = is_test & (images["owner"] == "").to_numpy()
    without = accuracy = None
    if (clusters[without_id] >= 0).any():
        # An image outside all clusters is a patient of its own.
        single = clusters.max() + 1 + np.arange(len(images))
        patients = np.where(clusters >= 0, clusters, single)
        other_patients = search(vectors, patients, is_test, np.inf, across=True).in_pool_other_patients
        accuracy, without = (_accuracy(images, nearest, without_id) for nearest in (all_patients, other_patients))
    return {
        "nn_accuracy_without_suspected_patient": without,
        "nn_gap_suspected": None if accuracy is None or without is None else accuracy - without,
    }


def _accuracy(images: pd.DataFrame, nearest: NearestNeighbours, selected: np.ndarray) -> float | None:
    """Accuracy over the selected images that have a neighbour; None if none has."""
    rows = np.flatnonzero(selected & (nearest.index >= 0))
    label = images["label"].to_numpy()
    return float((label[nearest.index[rows]] == label[rows]).mean()) if len(rows) else None


def _patients_by_class(images: pd.DataFrame, classes: list[str]) -> dict[str, dict[str, int]]:
    """Number of known patients per split and class (`metrics/split.json` counts their images)."""
    known = images[(images["owner"] != "") & (images["kind"] != "synthetic")]
    count = known.groupby(["split", "label"])["owner"].nunique()
    present = [label for label in classes if (images["label"] == label).any()]
    return {name: {label: int(count.get((name, label), 0)) for label in present} for name in SPLITS}


def _classes_not_in_test(images: pd.DataFrame, classes: list[str]) -> list[str]:
    """Classes that occur in train or validation but not in test, whether or not patients are known."""
    present, tested = set(images["label"]), set(images["label"][images["split"] == "test"])
    return [label for label in classes if label in present - tested]


def _closeness(all_patients: NearestNeighbours, other_patients: NearestNeighbours) -> pd.DataFrame:
    """Share of test images with a train or validation image of at least `similarity`.

    Images of the same patient count in the column `with_own_patient` and not in `without_own_patient`.
    """
    parts = [np.sort(nearest.similarity[nearest.index >= 0]) for nearest in (all_patients, other_patients)]
    grid = np.linspace(min((part[0] for part in parts if len(part)), default=0), 1, 101).astype(np.float32)
    # The correlation of identical images may be rounded to slightly below 1.
    shares = [1 - np.searchsorted(part, grid - 1e-5) / max(len(part), 1) for part in parts]
    return pd.DataFrame({
        "similarity": grid, "with_own_patient": shares[0], "without_own_patient": shares[1],
    }).round(4)  # fmt: skip
