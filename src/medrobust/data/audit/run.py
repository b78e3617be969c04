"""Whether a number from this split can mean anything: overlap, duplicates, lineage, a learner without learning.

The 1-nearest-neighbour on small pictures learns nothing about disease. Where it scores far higher with a test
patient's own slices in the pool than without, accuracy on this split measures recognition of patients.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.neighbours import Nearest, Search, pictures, search
from medrobust.data.audit.suspects import look_alikes, suspect_table, suspected_patients
from medrobust.data.audit.verdict import judge
from medrobust.data.split import SPLITS, patient_of
from medrobust.data.store import ImageStore

#: What the table of pairs says of both images; of the second with `other_` before it.
SIDES = ["id", "split", "label", "owner", "row"]


@dataclass(frozen=True)
class Audit:
    """What the audit found.

    Attributes:
        metrics: for `metrics/audit.json`, the verdict first.
        pairs: copies across splits, under two labels or of two patients, worst first: `kind` (byte-identical |
            near copy), `similarity` (correlation), and `SIDES` of both images.
        nearest: for each test image its nearest in train and validation, in the same columns, most similar first.
        suspects: one row an image of a suspected patient, see `suspects.py`.
        closeness: share of the test images that have an image at least so similar in train or validation, with
            and without their own patient's.
    """

    metrics: dict[str, Any]
    pairs: pd.DataFrame
    nearest: pd.DataFrame
    suspects: pd.DataFrame
    closeness: pd.DataFrame


def audit(store: ImageStore, split: pd.DataFrame, params: AuditParams) -> Audit:
    """Look at every pair of the images that the split uses.

    Args:
        store: the prepared images.
        split: the split table.
        params: when two images count as the same, and when as of one patient.
    """
    frame = store.manifest.assign(split=split["split"], label=split["label"], row=np.arange(len(split)))
    frame["owner"] = patient_of(frame)
    used = frame[frame["split"].isin(SPLITS)].reset_index(drop=True)
    people = pd.factorize(used["owner"].where(used["owner"] != ""))[0]
    tested = (used["split"] == "test").to_numpy()
    vectors = pictures(store.images, used["row"].to_numpy())
    found = search(vectors, people, tested, params.near_duplicate, params.same_patient)
    pairs = copies(used, found)
    twins, clusters = look_alikes(used, found), suspected_patients(used, found)
    suspects = [
        suspect_table(used, twins, "look-alike patients"),
        suspect_table(used, clusters, "images without a patient id"),
    ]
    metrics: dict[str, Any] = {
        **overlap(used),
        **duplicates(used, pairs, found, params.near_duplicate),
        **lineage(frame, used),
        **suspicion("look_alike_patients", suspects[0]),
        **suspicion("suspected_patients", suspects[1]),
        **recognition(used, found.pool, found.pool_others),
        **blind_recognition(used, vectors, clusters, found.pool),
        "patients_by_class": patients_by_class(used, store.header.classes),
        "classes_not_in_test": not_in_test(used, store.header.classes),
    }
    verdict, reasons = judge(metrics)
    test = np.flatnonzero(found.pool.index >= 0)
    nearest = _side_by_side(used, test, found.pool.index[test], found.pool.similarity[test]).assign(kind="nearest")
    return Audit(
        {"verdict": verdict, "reasons": reasons, **metrics},
        pairs,
        nearest.sort_values("similarity", ascending=False, ignore_index=True),
        pd.concat(suspects, ignore_index=True),
        closeness(found.pool, found.pool_others),
    )


def overlap(used: pd.DataFrame) -> dict[str, Any]:
    """Patients who stand in two splits. A synthetic train image is no patient there; see `lineage`."""
    real = used[used["kind"] != "synthetic"]
    test = set(used["owner"][used["split"] == "test"]) - {""}
    train, val = (set(real["owner"][real["split"] == name]) - {""} for name in ("train", "val"))
    return {
        "test_patients": len(test),
        "test_patients_in_train": len(test & train),
        "test_patients_in_val": len(test & val),
        "val_patients_in_train": len(val & train),
        "images_without_patient": int((used["owner"] == "").sum()),
    }


def duplicates(used: pd.DataFrame, pairs: pd.DataFrame, found: Search, near: float) -> dict[str, Any]:
    """Byte-identical files and near duplicates; a test image counts once however many copies it has."""
    test, pool = used[used["split"] == "test"], used[used["split"] != "test"]
    crossing = pairs["split"] != pairs["other_split"]
    exact = pairs["kind"] == "byte-identical"
    return {
        "test_images_with_exact_copy": int(test["sha256"].isin(pool["sha256"]).sum()),
        "test_images_with_near_copy": int((found.pool.similarity >= near).sum()),
        "exact_pairs_across_splits": int((crossing & exact).sum()),
        "near_pairs_across_splits": int((crossing & ~exact).sum()),
        "near_pairs": found.near.count,
        "label_conflicts": int((used.groupby("sha256")["label"].nunique() > 1).sum()),
        "near_label_conflicts": int((~exact & (pairs["label"] != pairs["other_label"])).sum()),
    }


def lineage(frame: pd.DataFrame, used: pd.DataFrame) -> dict[str, Any]:
    """Synthetic images: what they were made from, and where they stand."""
    real = frame[frame["kind"] != "synthetic"]
    made = used[used["kind"] == "synthetic"]
    tested = set(used["owner"][(used["split"] == "test") & (used["kind"] != "synthetic")]) - {""}
    outside = made[made["split"] != "test"]
    return {
        "synthetic_exact_copies": int(
            (frame["kind"].eq("synthetic") & frame["sha256"].isin(real["sha256"])).sum()
        ),
        "synthetic_children_of_test_patients": int(outside["owner"].isin(tested).sum()),
        "synthetic_of_unknown_parent": int((made["owner"] == "").sum()),
        "synthetic_test_images": int((made["split"] == "test").sum()),
    }


def suspicion(name: str, suspects: pd.DataFrame) -> dict[str, Any]:
    """How many suspected persons there are, how many stand in test and elsewhere, with how many test images."""
    tested = suspects["split"].eq("test").groupby(suspects["suspect"]).transform("any")
    elsewhere = suspects["split"].ne("test").groupby(suspects["suspect"]).transform("any")
    across = suspects[tested & elsewhere]
    return {
        name: int(suspects["suspect"].nunique()),
        f"{name}_across_test": int(across["suspect"].nunique()),
        f"test_images_of_{name}_across": int((across["split"] == "test").sum()),
    }


def recognition(used: pd.DataFrame, every: Nearest, others: Nearest) -> dict[str, Any]:
    """Accuracy of the nearest neighbour, with and without the own patient's images, and the gap."""
    tested = (used["split"] == "test").to_numpy()
    accuracy, without = (_accuracy(used, nearest, tested) for nearest in (every, others))
    return {
        "nn_accuracy": accuracy,
        "nn_accuracy_without_own_patient": without,
        "nn_gap": None if accuracy is None or without is None else accuracy - without,
        "majority_accuracy": float(used["label"][tested].value_counts(normalize=True).iloc[0]),
    }


def blind_recognition(
    used: pd.DataFrame, vectors: np.ndarray, clusters: np.ndarray, every: Nearest
) -> dict[str, Any]:
    """The same over the test images without a patient id, whose suspected patient is taken for the true one."""
    tested = (used["split"] == "test").to_numpy()
    blind = tested & (used["owner"] == "").to_numpy()
    without = accuracy = None
    if (clusters[blind] >= 0).any():
        alone = clusters.max() + 1 + np.arange(len(used))
        found = search(vectors, np.where(clusters >= 0, clusters, alone), tested, near=np.inf, across=True)
        accuracy, without = (_accuracy(used, nearest, blind) for nearest in (every, found.pool_others))
    return {
        "nn_accuracy_without_suspected_patient": without,
        "nn_gap_suspected": None if accuracy is None or without is None else accuracy - without,
    }


def _accuracy(used: pd.DataFrame, nearest: Nearest, among: np.ndarray) -> float | None:
    """Over those of the images that have a neighbour; None if none has."""
    rows = np.flatnonzero(among & (nearest.index >= 0))
    label = used["label"].to_numpy()
    return float((label[nearest.index[rows]] == label[rows]).mean()) if len(rows) else None


def patients_by_class(used: pd.DataFrame, classes: list[str]) -> dict[str, dict[str, int]]:
    """Known patients of each class in each split (their images are counted in `metrics/split.json`)."""
    known = used[(used["owner"] != "") & (used["kind"] != "synthetic")]
    count = known.groupby(["split", "label"])["owner"].nunique()
    left = [label for label in classes if (used["label"] == label).any()]
    return {name: {label: int(count.get((name, label), 0)) for label in left} for name in SPLITS}


def not_in_test(used: pd.DataFrame, classes: list[str]) -> list[str]:
    """Classes that train or validation has and test has not, whether patients are known or not."""
    left, tested = set(used["label"]), set(used["label"][used["split"] == "test"])
    return [label for label in classes if label in left - tested]


def closeness(every: Nearest, others: Nearest) -> pd.DataFrame:
    """The curve of `Audit.closeness`: `similarity`, `with_own_patient`, `without_own_patient`."""
    parts = [np.sort(nearest.similarity[nearest.index >= 0]) for nearest in (every, others)]
    grid = np.linspace(min((part[0] for part in parts if len(part)), default=0), 1, 101).astype(np.float32)
    # A copy's correlation with itself may round to just below 1.
    shares = [1 - np.searchsorted(part, grid - 1e-5) / max(len(part), 1) for part in parts]
    return pd.DataFrame({
        "similarity": grid, "with_own_patient": shares[0], "without_own_patient": shares[1],
    }).round(4)  # fmt: skip


def copies(used: pd.DataFrame, found: Search) -> pd.DataFrame:
    """The table of pairs that matter: across splits, under two labels, or of two known patients."""
    digest = used["sha256"].to_numpy()
    # One pair for each further file of the same bytes, with the first of them: test before val before train.
    ranked = used[used["sha256"].duplicated(keep=False)].sort_values(["split", "id"], key=_rank)
    leader = ranked.index.to_series().groupby(ranked["sha256"]).transform("first")
    leader = leader[leader != leader.index]
    exact = _side_by_side(used, leader.to_numpy(), leader.index.to_numpy(), 1.0).assign(kind="byte-identical")
    other = digest[found.near.first] != digest[found.near.second]
    first, second = found.near.first[other], found.near.second[other]
    rank = _rank(used["split"]).to_numpy()
    swap = rank[first] > rank[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    near = _side_by_side(used, first, second, found.near.similarity[other]).assign(kind="near copy")
    pairs = pd.concat([exact, near], ignore_index=True)
    crossing = pairs["split"] != pairs["other_split"]
    conflict = pairs["label"] != pairs["other_label"]
    strangers = (pairs["owner"] != pairs["other_owner"]) & (pairs["owner"] != "") & (pairs["other_owner"] != "")
    pairs["grade"] = np.select([crossing & (pairs["split"] == "test"), conflict, crossing], [0, 1, 2], 3)
    pairs = pairs[crossing | conflict | strangers]
    order = ["grade", "kind", "similarity", "id", "other_id"]
    return pairs.sort_values(order, ascending=[True, True, False, True, True], ignore_index=True).drop(
        columns="grade"
    )


def _rank(column: pd.Series) -> pd.Series:
    """Splits in the order in which a pair names them, test first; other columns as they are."""
    return column.map({"test": 0, "val": 1, "train": 2}) if column.name == "split" else column


def _side_by_side(used: pd.DataFrame, first: np.ndarray, second: np.ndarray, similarity: Any) -> pd.DataFrame:
    """One row a pair: the correlation, and `SIDES` of both images."""
    left = used[SIDES].iloc[first].reset_index(drop=True)
    right = used[SIDES].iloc[second].reset_index(drop=True).add_prefix("other_")
    return pd.concat([left, right], axis=1).assign(similarity=similarity)
