"""The audit of external data finds copies of the own images, and ids of the own patients."""

from dataclasses import replace

import numpy as np
import pytest

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.external import COLUMNS, audit_external
from medrobust.data.split import UNLABELLED, make_split
from medrobust.data.store import ImageStore, SplitStore
from tests.data.stores import split_params, store

RULES = AuditParams(near_duplicate=0.995, same_patient=0.9, on_leak="warn")


@pytest.fixture
def own() -> SplitStore:
    """The own data with their split."""
    data = store([8, 8, 8])
    return SplitStore(data, make_split(data.manifest, data.header, split_params(), 0))


@pytest.fixture
def other() -> ImageStore:
    """Other patients, with ids of their own."""
    data = store([3, 3, 3], seed=1)
    manifest = data.manifest.assign(id="x" + data.manifest["id"], patient="x" + data.manifest["patient"])
    return replace(data, manifest=manifest)


def row_of(own: SplitStore, split: str) -> int:
    """The first own image in a split."""
    return int(np.flatnonzero(own.table["split"] == split)[0])


def test_other_patients_are_clean(own: SplitStore, other: ImageStore) -> None:
    found = audit_external(other, own, RULES)
    assert (found.metrics["verdict"], found.metrics["reasons"]) == ("clean", [])
    assert (found.metrics["images"], found.metrics["patients"]) == (36, 9)
    assert found.copies.empty
    assert list(found.copies) == COLUMNS


@pytest.mark.parametrize("split", ["train", "val", UNLABELLED])
def test_copies_of_images_of_training_leak(own: SplitStore, other: ImageStore, split: str) -> None:
    place = row_of(own, "train" if split == UNLABELLED else split)
    if split == UNLABELLED:
        own.table.loc[place, "split"] = UNLABELLED
    other.images[5] = own.store.images[place]
    other.images[7] = np.clip(own.store.images[place].astype(int) + 9, 0, 255)  # brighter: other pixels
    metrics = audit_external(other, own, RULES).metrics
    assert metrics["verdict"] == "leaking"
    assert metrics["reasons"] == [
        "1 of 36 external images have an exact copy in train or val",
        "1 of 36 external images have a near copy in train or val",
    ]
    assert (metrics["exact_copies_in_training"], metrics["near_copies_in_training"]) == (1, 1)
    copies = audit_external(other, own, RULES).copies
    assert list(copies["id"]) == [other.manifest["id"][5], other.manifest["id"][7]]
    assert set(copies["other_id"]) == {own.store.manifest["id"][place]}
    assert set(copies["other_split"]) == {"train" if split == UNLABELLED else split}
    assert list(copies["kind"]) == ["exact", "near"]


def test_copies_of_test_images_and_equal_ids_are_doubts(own: SplitStore, other: ImageStore) -> None:
    other.images[0] = own.store.images[row_of(own, "test")]
    trained = own.store.manifest["patient"][row_of(own, "train")]
    other.manifest.loc[4, "patient"] = trained
    other.manifest.loc[8, "patient"] = own.store.manifest["patient"][row_of(own, "test")]
    other.manifest.loc[9, "patient"] = ""
    metrics = audit_external(other, own, RULES).metrics
    assert metrics["verdict"] == "suspect"
    assert metrics["reasons"] == [
        "1 of 36 external images have a copy in test",
        "1 patient ids are also in train or val: they may be the same persons",
    ]


def test_excluded_images_do_not_count(own: SplitStore, other: ImageStore) -> None:
    place = row_of(own, "train")
    other.images[0] = own.store.images[place]
    own.table.loc[place, "split"] = "excluded"
    assert audit_external(other, own, RULES).metrics["verdict"] == "clean"
