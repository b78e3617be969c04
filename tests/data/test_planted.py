"""The audit finds exactly the faults that are added to the phantom."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medrobust.core.params.data import AuditParams, DataParams
from medrobust.core.records import read_table, write_table
from medrobust.data.audit.audit_split import Audit, audit_split
from medrobust.data.prepare import download, prepare
from medrobust.data.sources import phantom
from medrobust.data.sources.base import Listing
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore
from tests.data.planted import Plan, plant
from tests.data.stores import split_params
from tests.params import default_block

CLASSES = ["low", "middle", "high"]
RULES = default_block(AuditParams, "audit")


def make(folder: Path, seed: int = 0, patients: int = 6, **plan: Any) -> tuple[ImageStore, pd.DataFrame]:
    """A phantom with the faults of a plan, and the table of these."""
    block = {
        "patients": dict.fromkeys(CLASSES, patients),
        "slices": 3,
        "difficulty": 0.0,
        "ripple": 0.0,
        "shift": 0.0,
    }
    data = default_block(DataParams, "data", source="phantom", classes=CLASSES, image_size=48, phantom=block)
    download(data, folder / "raw", seed)
    if not plan:
        prepare(data, folder / "raw", folder / "prepared")
        return ImageStore.open(folder / "prepared"), pd.DataFrame()
    path = folder / "raw" / "manifest.csv"
    table, planted = plant(folder / "raw", read_table(path, keep_default_na=False), Plan(**plan), seed)
    write_table(path, table)
    plain_listing = phantom.listing

    def listing(data: DataParams, folder: Path) -> Listing:
        return replace(plain_listing(data, folder), table=table.assign(published_split=""))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "listing", listing)
        prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared"), planted


def checked(store: ImageStore, **split: Any) -> Audit:
    """The audit of a split of the phantom."""
    return audit_split(store, make_split(store.manifest, store.header, split_params(**split), 0), RULES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """A phantom without faults."""
    return make(tmp_path_factory.mktemp("plain"))[0]


def test_an_empty_plan_changes_nothing_and_nothing_is_found(plain: ImageStore, tmp_path: Path) -> None:
    same, planted = make(tmp_path, synthetic=0.0)
    assert len(planted) == 0
    assert same.header.sha256 == plain.header.sha256
    assert same.manifest.equals(plain.manifest)
    found = checked(plain)
    assert (found.metrics["verdict"], len(found.pairs), len(found.suspects)) == ("clean", 0, 0)


def test_copies_are_found_one_by_one(plain: ImageStore, tmp_path: Path) -> None:
    store, planted = make(tmp_path, exact_copies=3, near_copies=3)
    assert planted["kind"].value_counts().to_dict() == {"exact copy": 3, "near copy": 3}
    assert len(store.images) == len(plain.images) + 6
    rows = store.manifest["id"].isin(plain.manifest["id"]).to_numpy()
    np.testing.assert_array_equal(store.images[rows], plain.images)
    found = checked(store)
    listed = {(row.kind, frozenset((row.id, row.other_id))) for row in found.pairs.itertuples()}
    kinds = planted["kind"].replace({"exact copy": "byte-identical"})
    truth = {(k, frozenset(pair)) for k, *pair in zip(kinds, planted["id"], planted["of"], strict=True)}
    assert listed == truth
    assert found.metrics["near_pairs"] == 3
    assert found.metrics["look_alike_patients"] == 0


def test_a_person_under_two_ids_is_found(tmp_path: Path) -> None:
    store, planted = make(tmp_path, second_ids=2)
    owner = dict(zip(store.manifest["id"], store.manifest["patient"], strict=True))
    truth = {frozenset((owner[a], owner[b])) for a, b in zip(planted["id"], planted["of"], strict=True)}
    assert len(truth) == 2
    found = checked(store)
    groups = found.suspects.groupby("suspect")["patient"].agg(frozenset)
    assert set(groups) == truth
    assert (found.metrics["verdict"], found.metrics["look_alike_patients"]) == ("suspect", 2)


def test_children_follow_their_parents_and_are_told_on_elsewhere(tmp_path: Path) -> None:
    store, planted = make(tmp_path, synthetic=0.5)
    children = store.manifest["kind"] == "synthetic"
    assert children.sum() == len(planted) == 27
    assert dict(zip(planted["id"], planted["of"], strict=True)) == dict(
        zip(store.manifest["id"][children], store.manifest["parent"][children], strict=True)
    )
    assert (store.manifest["patient"][children] == "").all()
    table = make_split(store.manifest, store.header, split_params(), 0).set_index("id")["split"]
    assert set(table[planted["id"]]) == {"train", "excluded"}
    assert (table[planted["id"]].to_numpy() == "train").sum() == (table[planted["of"]].to_numpy() == "train").sum()
    clean = checked(store)
    assert (clean.metrics["verdict"], clean.metrics["reasons"]) == ("clean", [])
    table = make_split(store.manifest, store.header, split_params(strategy="random"), 0).set_index("id")["split"]
    leaking = checked(store, strategy="random").metrics
    owner = store.manifest.set_index("id")["patient"]
    tested = set(owner[table[table == "test"].index]) - {""}
    made = [c for c, p in zip(planted["id"], planted["of"], strict=True) if owner[p] in tested]
    assert leaking["synthetic_children_of_test_patients"] == (table[made] != "test").sum() > 0
    assert leaking["synthetic_test_images"] == (table[planted["id"]] == "test").sum()


def test_children_are_changed_but_alike(tmp_path: Path) -> None:
    store, planted = make(tmp_path, synthetic=0.2, patients=3)
    row = {name: number for number, name in enumerate(store.manifest["id"])}
    for child, parent in zip(planted["id"], planted["of"], strict=True):
        pair = store.images[[row[child], row[parent]]].reshape(2, -1)
        assert 0.5 < np.corrcoef(pair)[0, 1] < 0.99


def test_a_plan_that_needs_more_patients_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 second ids and 4 copies need 11 patients"):
        make(tmp_path, patients=3, second_ids=3, exact_copies=2, near_copies=2)
