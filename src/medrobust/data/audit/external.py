"""Audit of an external data set: images and patients that the run's own data have too."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.neighbours import NearestNeighbours, search, thumbnails
from medrobust.data.audit.pairs import pixel_digests
from medrobust.data.split import UNLABELLED
from medrobust.data.store import ImageStore, SplitStore

#: Columns of the table of copies.
COLUMNS = ["id", "other_id", "other_split", "kind", "similarity"]


@dataclass(frozen=True)
class ExternalAudit:
    """Result of an audit of external data; `copies` has one row per external image with a copy, of `COLUMNS`."""

    metrics: dict[str, Any]  # the verdict first
    copies: pd.DataFrame


def audit_external(external: ImageStore, own: SplitStore, params: AuditParams) -> ExternalAudit:
    """Compare every external image with every image that the split uses.

    A copy is an image with the same pixels (exact) or with a correlation of at least `params.near_duplicate`
    (near). A copy of a training or validation image is a leak, because models are fitted on these.
    A copy of a test image is only a doubt: no model is fitted on test images.
    """
    split = own.table["split"].replace(UNLABELLED, "train").to_numpy()
    known = np.isin(split, ["train", "val"])
    trained, tested = np.flatnonzero(known), np.flatnonzero(split == "test")
    digests = pixel_digests(external.images), pixel_digests(own.store.images)
    vectors = thumbnails(external.images, np.arange(len(external.images)))
    found = [
        _copies(external, own, rows, digests, _nearest(vectors, own, rows), params.near_duplicate)
        for rows in (trained, tested)
    ]
    copies = pd.concat(found, ignore_index=True).assign(other_split=lambda table: split[table["row"].astype(int)])
    seen = copies["other_split"] != "test"
    shared = _ids(external.manifest["patient"]) & _ids(own.store.manifest["patient"][known])
    counts = {
        "images": len(external.images),
        "patients": external.header.patients,
        "exact_copies_in_training": int((seen & (copies["kind"] == "exact")).sum()),
        "near_copies_in_training": int((seen & (copies["kind"] == "near")).sum()),
        "copies_in_test": int((~seen).sum()),
        "patient_ids_in_training": len(shared),
    }
    verdict, reasons = _verdict(counts)
    return ExternalAudit({"verdict": verdict, "reasons": reasons, **counts}, copies[COLUMNS])


def _ids(patients: pd.Series) -> set[str]:
    return {*patients} - {""}


def _copies(
    external: ImageStore, own: SplitStore, rows: np.ndarray, digests: tuple[list[bytes], list[bytes]],
    nearest: NearestNeighbours, near: float,
) -> pd.DataFrame:  # fmt: skip
    """The external images with a copy among some rows of the own images, each with its nearest copy (`row`).

    `digests` are those of the external images and of all own images; `nearest` is from `_nearest`.
    """
    first = {digests[1][row]: row for row in reversed(rows)}
    exact = np.array([first.get(digest, -1) for digest in digests[0]])
    found = np.flatnonzero((exact >= 0) | (nearest.similarity >= near))
    row = np.where(exact >= 0, exact, rows[nearest.index])[found] if len(rows) else np.empty(0, dtype=int)
    return pd.DataFrame({
        "id": external.manifest["id"].to_numpy()[found],
        "other_id": own.store.manifest["id"].to_numpy()[row],
        "kind": np.where(exact[found] >= 0, "exact", "near"),
        "similarity": nearest.similarity[found].round(6),
        "row": row,
    })  # fmt: skip


def _nearest(external: np.ndarray, own: SplitStore, rows: np.ndarray) -> NearestNeighbours:
    """The nearest of some own images for each external image; `external` has the thumbnails of these."""
    vectors = np.concatenate([thumbnails(own.store.images, rows), external])
    is_external = np.arange(len(vectors)) >= len(rows)
    nobody = np.full(len(vectors), -1)
    pool = search(vectors, nobody, is_external, 2.0, across=True).in_pool
    return NearestNeighbours(pool.index[len(rows) :], pool.similarity[len(rows) :])


def _verdict(counts: dict[str, int]) -> tuple[str, list[str]]:
    """`leaking`, `suspect` or `clean`, and the reasons in words."""
    images = counts["images"]
    leaks = [
        f"{counts[key]} of {images} external images have {kind} copy in train or val"
        for key, kind in (("exact_copies_in_training", "an exact"), ("near_copies_in_training", "a near"))
        if counts[key]
    ]
    doubts = []
    if counts["copies_in_test"]:
        doubts.append(f"{counts['copies_in_test']} of {images} external images have a copy in test")
    if counts["patient_ids_in_training"]:
        shared = counts["patient_ids_in_training"]
        doubts.append(f"{shared} patient ids are also in train or val: they may be the same persons")
    return ("leaking" if leaks else "suspect" if doubts else "clean"), leaks + doubts
