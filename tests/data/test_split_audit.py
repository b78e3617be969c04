"""No patient in two splits; and the audit finds what is planted."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrobust.data.audit import audit, judge
from medrobust.data.split import make_split, split_metrics
from medrobust.data.store import Header, ImageStore
from medrobust.errors import UserError
from medrobust.params.data import AuditParams, SplitParams

CLASSES = ["a", "b", "c"]


def store(patients: list[int], slices: int = 4, seed: int = 0) -> ImageStore:
    """Images of some patients a class; slices of a patient look alike."""
    rng = np.random.default_rng(seed)
    rows, pixels = [], []
    for label, count in zip(CLASSES, patients, strict=True):
        for number in range(count):
            anatomy = rng.integers(0, 200, (32, 32))
            for index in range(slices):
                name = f"{label}{number}_{index}"
                rows.append(
                    {"id": name, "sha256": name, "label": label, "patient": f"{label}{number}", "slice": index}
                )
                pixels.append(anatomy + rng.integers(0, 30, (32, 32)))
    manifest = pd.DataFrame(rows).assign(kind="real", parent="", published_split="")
    counts = {label: int((manifest["label"] == label).sum()) for label in CLASSES}
    header = Header("test", CLASSES, True, 32, 1, len(rows), sum(patients), counts, "", "", "", "")
    return ImageStore(np.array(pixels, dtype=np.uint8), manifest, header)


def params(**changes: Any) -> SplitParams:
    return SplitParams.model_validate(
        {"strategy": "patient", "val": 0.2, "test": 0.25, "small_class": "fail", **changes}
    )


RULES = AuditParams(near_duplicate=0.995, on_leak="warn")


@given(st.lists(st.integers(3, 12), min_size=3, max_size=3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_patient_stands_in_two_splits(patients: list[int], seed: int) -> None:
    data = store(patients, slices=2)
    table = make_split(data.manifest, data.header, params(), seed)
    assert (table["split"].groupby(data.manifest["patient"]).nunique() == 1).all()
    counts = pd.crosstab(table["label"], table["split"])
    assert (counts[["train", "val", "test"]] > 0).to_numpy().all()
    again = make_split(data.manifest, data.header, params(), seed)
    pd.testing.assert_frame_equal(table, again)


def test_a_small_class_needs_an_explicit_choice() -> None:
    data = store([6, 6, 2])
    with pytest.raises(UserError, match="class c has 2 patients, too few"):
        make_split(data.manifest, data.header, params(), 0)
    deal = {
        choice: set(
            make_split(data.manifest, data.header, params(small_class=choice), 0).query("label == 'c'")["split"]
        )
        for choice in ("train_only", "no_val")
    }
    assert deal == {"train_only": {"train"}, "no_val": {"train", "test"}}
    merged = make_split(data.manifest, data.header, params(small_class="merge", merge={"c": "b"}), 0)
    assert set(merged["label"]) == {"a", "b"}
    assert data.subset(merged, "test").classes == ["a", "b"]
    with pytest.raises(UserError, match=r"split\.merge: no class 'd'"):
        make_split(data.manifest, data.header, params(small_class="merge", merge={"c": "d"}), 0)


def test_each_strategy_says_what_it_lacks() -> None:
    data = store([6, 6, 6])
    with pytest.raises(UserError, match="no train and test folders"):
        make_split(data.manifest, data.header, params(strategy="published"), 0)
    data.manifest["patient"] = ""
    with pytest.raises(UserError, match="72 real images have no patient id"):
        make_split(data.manifest, data.header, params(), 0)
    with pytest.raises(UserError, match="test is empty"):
        make_split(data.manifest, data.header, params(strategy="random", test=0.0), 0)


def test_synthetic_images_follow_their_parent_into_train_only() -> None:
    data = store([6, 6, 6])
    copies = data.manifest.iloc[:8].assign(kind="synthetic", parent=data.manifest["id"].iloc[:8], patient="")
    copies["id"] = "s" + copies["id"]
    orphan = copies.iloc[:1].assign(id="orphan", parent="")
    manifest = pd.concat([data.manifest, copies, orphan], ignore_index=True)
    table = make_split(manifest, data.header, params(), 0)
    dealt = dict(zip(table["id"], table["split"], strict=True))
    for child, parent in zip(copies["id"], copies["parent"], strict=True):
        assert dealt[child] == ("train" if dealt[parent] == "train" else "excluded")
    assert dealt["orphan"] == "excluded"
    assert "unknown parent" in table["reason"].iloc[-1]


def test_counts_add_up() -> None:
    data = store([5, 5, 5])
    counts = split_metrics(make_split(data.manifest, data.header, params(), 0), data.manifest, data.header)
    assert sum(part["images"] for part in counts.values()) == 60
    assert sum(part["patients"] for part in counts.values()) == 15


def test_a_patient_split_is_clean_and_a_random_one_leaks() -> None:
    data = store([8, 8, 8])
    clean, _ = audit(data, make_split(data.manifest, data.header, params(), 0), RULES)
    assert clean["verdict"] == "clean"
    assert clean["nn_accuracy"] == clean["nn_accuracy_without_own_patient"]
    leaking, _ = audit(data, make_split(data.manifest, data.header, params(strategy="random"), 0), RULES)
    assert leaking["verdict"] == "leaking"
    assert leaking["nn_accuracy"] == 1.0
    assert leaking["nn_accuracy_without_own_patient"] < 0.7
    assert any("test patients also stand in train" in reason for reason in leaking["reasons"])


def test_planted_copies_are_found() -> None:
    data = store([8, 8, 8])
    table = make_split(data.manifest, data.header, params(), 0)
    test, train = (int(np.flatnonzero(table["split"] == name)[0]) for name in ("test", "train"))
    data.images[test] = data.images[train]
    near, pairs = audit(data, table, RULES)
    assert near["test_images_with_near_copy"] == 1
    assert near["verdict"] == "suspect"
    assert (pairs["test_row"].iloc[0], pairs["other_row"].iloc[0]) == (test, train)
    hashes = data.manifest["sha256"].tolist()
    hashes[test] = hashes[train]
    data.manifest["sha256"] = hashes
    exact, _ = audit(data, table, RULES)
    assert exact["test_images_with_exact_copy"] == 1
    assert exact["verdict"] == "leaking"


def test_unknown_patients_are_a_doubt() -> None:
    data = store([4, 4, 4])
    data.manifest["patient"] = ""
    found, _ = audit(data, make_split(data.manifest, data.header, params(strategy="random"), 0), RULES)
    assert found["verdict"] == "suspect"
    assert "no patient id" in found["reasons"][-1]


def test_nothing_against_a_split_is_no_reason() -> None:
    data = store([4, 4, 4])
    metrics, _ = audit(data, make_split(data.manifest, data.header, params(), 0), RULES)
    assert judge(metrics) == []
