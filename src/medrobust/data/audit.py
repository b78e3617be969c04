"""Whether a number from this split can mean anything: overlap, duplicates, lineage, a learner without learning.

The 1-nearest-neighbour on small pictures learns nothing about disease. Where it scores far higher with a test
patient's own slices in the pool than without, accuracy on this split measures recognition of patients.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medrobust.data.store import ImageStore
from medrobust.params.data import AuditParams

#: Side of the pictures that are compared, and test rows compared at once (bounds the memory).
SIDE, BLOCK = 32, 1024
#: A gain of the 1-NN by the own patient's images above this is called a leak (as a share of accuracy).
GAP = 0.05


@dataclass(frozen=True)
class Neighbours:
    """The nearest image of train and validation for each test image, among all and among other patients'."""

    index: np.ndarray
    similarity: np.ndarray
    other_index: np.ndarray


def audit(store: ImageStore, split: pd.DataFrame, params: AuditParams) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics for `metrics/audit.json`, and the near-duplicate pairs across splits, most similar first.

    Args:
        store: the prepared images.
        split: the split table.
        params: when two images count as the same.
    """
    frame = store.manifest.assign(split=split["split"], label=split["label"], row=np.arange(len(split)))
    test, pool = frame[frame["split"] == "test"], frame[frame["split"].isin(["train", "val"])]
    near = nearest(small(store, pool["row"].to_numpy()), small(store, test["row"].to_numpy()), pool, test)
    pairs = _pairs(test, pool, near, params.near_duplicate)
    hit = pool["label"].to_numpy()[near.index] == test["label"].to_numpy()
    other_hit = pool["label"].to_numpy()[near.other_index] == test["label"].to_numpy()
    patients = {
        name: set(frame.loc[frame["split"] == name, "patient"]) - {""} for name in ("train", "val", "test")
    }
    unknown = (frame["patient"] == "") & (frame["parent"] == "")
    parent = frame["parent"].map(frame.set_index("id")["patient"])
    metrics: dict[str, Any] = {
        "test_patients": len(patients["test"]),
        "test_patients_in_train": len(patients["test"] & patients["train"]),
        "test_patients_in_val": len(patients["test"] & patients["val"]),
        "val_patients_in_train": len(patients["val"] & patients["train"]),
        "images_without_patient": int((unknown & (frame["split"] != "excluded")).sum()),
        "test_images_with_exact_copy": int(test["sha256"].isin(pool["sha256"]).sum()),
        "synthetic_exact_copies": int(
            (frame["sha256"].duplicated(keep=False) & (frame["kind"] == "synthetic")).sum()
        ),
        "test_images_with_near_copy": len(pairs),
        "synthetic_children_of_test_patients": int(
            (parent.isin(patients["test"]) & frame["split"].eq("train")).sum()
        ),
        "synthetic_of_unknown_parent": int((pool["kind"].eq("synthetic") & pool["parent"].eq("")).sum()),
        "label_conflicts": int((frame.groupby("sha256")["label"].nunique() > 1).sum()),
        "nn_accuracy": float(hit.mean()),
        "nn_accuracy_without_own_patient": float(other_hit.mean()),
        "majority_accuracy": float(test["label"].value_counts(normalize=True).iloc[0]),
    }
    reasons = judge(metrics)
    leaking = any(kind == "leak" for kind, _ in reasons)
    verdict = "leaking" if leaking else "suspect" if reasons else "clean"
    return {"verdict": verdict, "reasons": [text for _, text in reasons], **metrics}, pairs


def judge(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The reasons against a split, each `leak` or `doubt`, in words."""
    m, reasons = metrics, []
    if shared := m["test_patients_in_train"]:
        reasons.append(("leak", f"{shared} of {m['test_patients']} test patients also stand in train"))
    if m["test_patients_in_val"] and not shared:
        reasons.append(("leak", f"{m['test_patients_in_val']} of {m['test_patients']} test patients stand in val"))
    if copies := m["test_images_with_exact_copy"]:
        reasons.append(("leak", f"{copies} test images have a byte-identical copy in train or val"))
    if children := m["synthetic_children_of_test_patients"]:
        reasons.append(("leak", f"{children} synthetic train images were made from test patients"))
    gap = m["nn_accuracy"] - m["nn_accuracy_without_own_patient"]
    if gap > GAP:
        text = (
            f"a nearest neighbour without learning scores {m['nn_accuracy']:.1%}, and "
            f"{m['nn_accuracy_without_own_patient']:.1%} without the patient's own images"
        )
        reasons.append(("leak", text))
    if m["val_patients_in_train"]:
        reasons.append(("doubt", f"{m['val_patients_in_train']} val patients stand in train: tuning sees them"))
    if near := m["test_images_with_near_copy"]:
        reasons.append(("doubt", f"{near} test images have a near copy in train or val"))
    if unknown := m["synthetic_of_unknown_parent"]:
        reasons.append(("doubt", f"{unknown} synthetic images of unknown parents are trained on"))
    if missing := m["images_without_patient"] - unknown:
        reasons.append(("doubt", f"{missing} images have no patient id: overlap cannot be ruled out"))
    if conflicts := m["label_conflicts"]:
        reasons.append(("doubt", f"{conflicts} images stand under two labels"))
    return reasons


def small(store: ImageStore, rows: np.ndarray) -> np.ndarray:
    """Float32, n×SIDE²: the images averaged down, centred and scaled to length 1 (correlation = dot product)."""
    size = store.images.shape[1]
    edges = np.linspace(0, size, min(SIDE, size) + 1).astype(int)[:-1]
    out = np.empty((len(rows), len(edges) ** 2), dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        block = store.images[rows[start : start + BLOCK]].astype(np.float32)
        block = block.mean(3) if block.ndim == 4 else block
        block = np.add.reduceat(np.add.reduceat(block, edges, axis=1), edges, axis=2)
        flat = block.reshape(len(block), -1)
        flat = flat - flat.mean(1, keepdims=True)
        out[start : start + BLOCK] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return out


def nearest(pool_vectors: np.ndarray, vectors: np.ndarray, pool: pd.DataFrame, test: pd.DataFrame) -> Neighbours:
    """Exact nearest neighbours by blocks of matrix products; no test×pool matrix is kept."""
    owner = pool["patient"].to_numpy()
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(vectors), BLOCK):
        similarity = vectors[start : start + BLOCK] @ pool_vectors.T
        index = similarity.argmax(1)
        best = similarity[np.arange(len(index)), index]
        # An image of unknown origin may be the patient's own, so only known others stand for "without".
        own = test["patient"].to_numpy()[start : start + BLOCK, None]
        similarity[((own == owner[None, :]) | (owner[None, :] == "")) & (own != "")] = -np.inf
        parts.append((index, best, similarity.argmax(1)))
    return Neighbours(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _pairs(test: pd.DataFrame, pool: pd.DataFrame, near: Neighbours, threshold: float) -> pd.DataFrame:
    rows = np.flatnonzero(near.similarity >= threshold)
    match = near.index[rows]
    table = pd.DataFrame({
        "test_id": test["id"].to_numpy()[rows], "other_id": pool["id"].to_numpy()[match],
        "test_row": test["row"].to_numpy()[rows], "other_row": pool["row"].to_numpy()[match],
        "similarity": near.similarity[rows].round(4),
    })  # fmt: skip
    return table.sort_values("similarity", ascending=False, ignore_index=True)


def contact_sheet(store: ImageStore, pairs: pd.DataFrame, path: Path, most: int = 12) -> None:
    """Write the worst pairs as one picture, test image above its twin; nothing if there is no pair."""
    from PIL import Image

    worst = pairs.head(most)
    if not len(worst):
        return
    rows = [
        np.concatenate(list(store.images[worst[name].to_numpy()]), axis=1) for name in ("test_row", "other_row")
    ]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
