"""No patient is in two splits, cross-validation tests every patient once, synthetic images are in train only."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medrobust.core.errors import UserError
from medrobust.data.split import make_split, patient_of, split_metrics
from tests.data.stores import split_params as params
from tests.data.stores import store


@given(st.lists(st.integers(3, 12), min_size=3, max_size=3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_patient_is_in_two_splits(patients: list[int], seed: int) -> None:
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
    splits = {
        choice: set(
            make_split(data.manifest, data.header, params(small_class=choice), 0).query("label == 'c'")["split"]
        )
        for choice in ("train_only", "no_val")
    }
    assert splits == {"train_only": {"train"}, "no_val": {"train", "test"}}
    merged = make_split(data.manifest, data.header, params(small_class="merge", merge={"c": "b"}), 0)
    assert set(merged["label"]) == {"a", "b"}
    assert data.subset(merged, "test").classes == ["a", "b"]
    with pytest.raises(UserError, match=r"split\.merge: no class 'd'"):
        make_split(data.manifest, data.header, params(small_class="merge", merge={"c": "d"}), 0)


def test_each_strategy_reports_what_the_data_lack() -> None:
    data = store([6, 6, 6])
    with pytest.raises(UserError, match="no train and test folders"):
        make_split(data.manifest, data.header, params(strategy="published"), 0)
    data.manifest["patient"] = ""
    for choice in ("fail", "exclude"):
        with pytest.raises(UserError, match=r"72 of 72 real images have no patient id\. Set data\.table"):
            make_split(data.manifest, data.header, params(unknown_patient=choice), 0)
    with pytest.raises(UserError, match="test is empty"):
        make_split(data.manifest, data.header, params(strategy="random", test=0.0), 0)


@pytest.mark.parametrize("strategy", ["patient", "kfold"])
def test_images_without_a_patient_are_named_or_left_out(strategy: str) -> None:
    data = store([6, 6, 6])
    data.manifest.loc[[3, 40], "patient"] = ""
    with pytest.raises(UserError, match=r"2 of 72 real images .* first are a0_3, b4_0.*unknown_patient: exclude"):
        make_split(data.manifest, data.header, params(strategy=strategy), 0)
    table = make_split(data.manifest, data.header, params(strategy=strategy, unknown_patient="exclude"), 0)
    left_out = table[table["split"] == "excluded"]
    assert left_out["id"].tolist() == ["a0_3", "b4_0"]
    assert set(left_out["reason"]) == {"no patient id"}
    assert (table.loc[~table.index.isin([3, 40]), "reason"] == "").all()


def test_synthetic_images_follow_their_parent_into_train_only() -> None:
    data = store([6, 6, 6])
    copies = data.manifest.iloc[:8].assign(kind="synthetic", parent=data.manifest["id"].iloc[:8], patient="")
    copies["id"] = "s" + copies["id"]
    orphan = copies.iloc[:1].assign(id="orphan", parent="")
    manifest = pd.concat([data.manifest, copies, orphan], ignore_index=True)
    table = make_split(manifest, data.header, params(), 0)
    split_of = dict(zip(table["id"], table["split"], strict=True))
    for child, parent in zip(copies["id"], copies["parent"], strict=True):
        assert split_of[child] == ("train" if split_of[parent] == "train" else "excluded")
    assert split_of["orphan"] == "excluded"
    assert "unknown parent" in table["reason"].iloc[-1]


def test_the_counts_add_up() -> None:
    data = store([5, 5, 5])
    counts = split_metrics(make_split(data.manifest, data.header, params(), 0), data.manifest, data.header)
    assert sum(part["images"] for part in counts.values()) == 60
    assert sum(part["patients"] for part in counts.values()) == 15
    for part in counts.values():  # four slices per patient
        assert part["patients_by_class"] == {label: part[label] // 4 for label in data.header.classes}


@given(st.lists(st.integers(5, 14), min_size=3, max_size=3), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_cross_validation_tests_every_patient_once(patients: list[int], folds: int, seed: int) -> None:
    data = store(patients, slices=2)
    tested = pd.Series(0, index=data.manifest["id"])
    sizes = []
    for fold in range(folds):
        table = make_split(data.manifest, data.header, params(strategy="kfold", folds=folds, fold=fold), seed)
        assert (table["split"].groupby(data.manifest["patient"]).nunique() == 1).all()
        counts = pd.crosstab(table["label"], table["split"])
        assert (counts[["train", "val", "test"]] > 0).to_numpy().all()
        tested[table["id"][table["split"] == "test"]] += 1
        sizes.append(counts["test"])
    assert (tested == 1).all()
    spread = pd.concat(sizes, axis=1)
    assert (spread.max(axis=1) - spread.min(axis=1) <= 2).all(), "a class has 2 slices per patient in each fold"


@pytest.mark.parametrize(
    "changes",
    [
        {"test": 0.85, "val": 0.1}, {"test": 0.5, "val": 0.1}, {"test": 0.1, "val": 0.9},
        {"test": 0.0, "val": 0.0}, {"strategy": "kfold", "folds": 3, "fold": 2, "val": 0.9},
    ],
)  # fmt: skip
def test_three_patients_of_a_class_give_every_split_at_least_one(changes: dict[str, Any]) -> None:
    """Whatever the shares are: without validation patients, a class could not be evaluated during training."""
    data = store([3, 4, 12])
    table = make_split(data.manifest, data.header, params(**changes), 0)
    assert (pd.crosstab(table["label"], table["split"])[["train", "val", "test"]] > 0).to_numpy().all()


def test_a_fold_that_leaves_no_validation_patient_needs_an_explicit_choice() -> None:
    """Three patients in two folds: the second fold tests two of them."""
    data = store([3, 6, 6])
    folds = [params(strategy="kfold", folds=2, fold=fold) for fold in (0, 1)]
    assert len(make_split(data.manifest, data.header, folds[0], 0))
    with pytest.raises(UserError, match=r"class a has 3 patients, too few for split\.folds: 2\. Set another"):
        make_split(data.manifest, data.header, folds[1], 0)


def test_a_class_with_fewer_patients_than_folds_needs_an_explicit_choice() -> None:
    data = store([6, 6, 4])

    def tested(choice: str, label: str) -> list[int]:
        tables = [
            make_split(data.manifest, data.header, params(strategy="kfold", fold=k, small_class=choice), 0)
            for k in range(5)
        ]
        assert not any(((t["split"] == "val") & (t["label"] == "c")).any() for t in tables)
        return [int(((t["split"] == "test") & (t["label"] == label)).sum()) // 4 for t in tables]

    with pytest.raises(UserError, match=r"too few for split\.folds: 5\. Set another split\.folds, or split"):
        tested("fail", "c")
    assert tested("train_only", "c") == [0] * 5
    assert sorted(tested("no_val", "c")) == [0, 1, 1, 1, 1]
    assert sorted(tested("no_val", "a")) == [1, 1, 1, 1, 2]


def test_a_fold_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="fold 5 does not exist: folds: 5 are counted from 0"):
        params(strategy="kfold", fold=5)


def test_parents_are_followed_over_generations_and_orphans_are_trained_on_if_requested() -> None:
    data = store([6, 6, 6])
    child = data.manifest.iloc[:1].assign(id="child", kind="synthetic", parent=data.manifest["id"][0], patient="")
    grandchild = child.assign(id="grandchild", parent="child")
    orphan = child.assign(id="orphan", parent="")
    manifest = pd.concat([data.manifest, grandchild, child, orphan], ignore_index=True)
    assert patient_of(manifest).tolist()[-3:] == [data.manifest["patient"][0], data.manifest["patient"][0], ""]
    for strategy in ("patient", "kfold"):
        table = make_split(manifest, data.header, params(strategy=strategy, unknown_parent="train"), 0)
        where = table.set_index("id")["split"]
        assert where["orphan"] == "train"
        assert where["grandchild"] == ("train" if where[data.manifest["id"][0]] == "train" else "excluded")
    manifest.loc[manifest["id"] == "child", "parent"] = "grandchild"
    with pytest.raises(UserError, match="child is its own ancestor"):
        patient_of(manifest)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_per_patient_keeps_evenly_spaced_slices(count: int) -> None:
    data = store([4, 4, 4], slices=8)
    data.manifest["slice"] = data.manifest["slice"].to_numpy()[::-1]  # not in the order of the manifest
    whole, table = (make_split(data.manifest, data.header, params(per_patient=n), 0) for n in (None, count))
    kept = table["split"] != "excluded"
    assert (whole["split"][kept] == table["split"][kept]).all()
    expected = [position * 8 // count for position in range(count)] if count < 8 else list(range(8))
    slices = data.manifest[kept].groupby("patient")["slice"].agg(sorted)
    assert slices.tolist() == [expected] * 12
    assert set(table["reason"][~kept]) <= {f"beyond {count} images of this patient"}


def test_per_patient_leaves_images_of_unknown_patients() -> None:
    data = store([4, 4, 4], slices=4)
    data.manifest["patient"] = ""
    table = make_split(data.manifest, data.header, params(strategy="random", per_patient=1), 0)
    assert (table["split"] != "excluded").all()


def test_a_published_fold_is_test_and_validation_has_whole_patients_of_the_others() -> None:
    data = store([10, 10, 10], slices=3)
    patients = data.manifest["patient"]
    fold_of = {name: str(number % 5 + 1) for number, name in enumerate(sorted(set(patients)))}
    data.manifest["published_split"] = patients.map(fold_of)
    tested = []
    for fold in range(5):
        table = make_split(data.manifest, data.header, params(strategy="published_folds", fold=fold), 0)
        assert (data.manifest["published_split"][table["split"] == "test"] == str(fold + 1)).all()
        assert (table["split"].groupby(patients).nunique() == 1).all()
        assert (pd.crosstab(table["label"], table["split"])["val"] == 2 * 3).all(), (
            "a fifth of 8 patients per class"
        )
        tested += table["id"][table["split"] == "test"].tolist()
    assert sorted(tested) == sorted(data.manifest["id"])


def test_published_folds_that_split_patients_stay_as_published() -> None:
    """So that the audit can report them; images without an id are patients of their own."""
    data = store([6, 6, 6], slices=2)
    data.manifest["published_split"] = [str(row % 2 + 1) for row in range(len(data.manifest))]
    data.manifest.loc[:1, "patient"] = ""
    table = make_split(data.manifest, data.header, params(strategy="published_folds"), 0)
    assert (table["split"][data.manifest["published_split"] == "1"] == "test").all()
    for fold, count in ((2, 2), (3, 2)):
        with pytest.raises(UserError, match=rf"fold {fold}, but the data have {count} published folds"):
            make_split(data.manifest, data.header, params(strategy="published_folds", fold=fold), 0)
    with pytest.raises(UserError, match="fold 0, but the data have 0 published folds"):
        plain = store([6, 6, 6])
        make_split(plain.manifest, plain.header, params(strategy="published_folds"), 0)


@pytest.mark.parametrize("strategy", ["patient", "kfold"])
def test_a_share_of_the_training_patients_of_each_class_is_kept(strategy: str) -> None:
    data = store([20, 30, 40], slices=4)
    whole, half, quarter = (
        make_split(data.manifest, data.header, params(strategy=strategy, train_share=share), 0)
        for share in (1.0, 0.5, 0.25)
    )
    for table, share in ((half, 0.5), (quarter, 0.25)):
        changed = table["split"] != whole["split"]
        assert set(table["split"][changed]) == {"excluded"}
        assert set(table["reason"][changed]) == {"beyond split.train_share"}
        kept, all_ = (
            data.manifest["patient"][t["split"] == "train"].groupby(t["label"]).nunique() for t in (table, whole)
        )
        assert kept.to_dict() == {label: round(share * count) for label, count in all_.items()}
        assert data.manifest["patient"][table["split"] == "train"].value_counts().unique().tolist() == [4]
    assert (half["split"][quarter["split"] == "train"] == "train").all()


def test_a_share_keeps_at_least_one_patient_of_each_class() -> None:
    data = store([6, 6, 6], slices=2)
    table = make_split(data.manifest, data.header, params(train_share=0.01), 0)
    train = data.manifest["patient"][table["split"] == "train"]
    assert train.groupby(table["label"]).nunique().to_dict() == dict.fromkeys(data.header.classes, 1)


def test_counts_draw_equal_numbers_per_class() -> None:
    data = store([20, 30, 40], slices=4)
    counts = {"train": 31, "unlabelled": 12, "val": 9, "test": 10}
    for strategy in ("random", "patient"):
        table = make_split(data.manifest, data.header, params(strategy=strategy, counts=counts), 0)
        assert table["split"].value_counts().drop("excluded").to_dict() == counts
        per_class = pd.crosstab(table["split"], table["label"])
        spread = per_class.drop("excluded").max(axis=1) - per_class.drop("excluded").min(axis=1)
        assert spread.max() <= 1
        assert set(table["reason"]) == {"", "beyond split.counts"}
        same = make_split(data.manifest, data.header, params(strategy=strategy, counts=counts), 0)
        pd.testing.assert_frame_equal(table, same)
        measured = split_metrics(table, data.manifest, data.header)
        assert measured["unlabelled"]["images"] == 12
    whole = make_split(data.manifest, data.header, params(strategy="patient"), 0)
    drawn = make_split(data.manifest, data.header, params(strategy="patient", counts=counts), 0)
    kept = drawn["split"] != "excluded"
    assert (drawn["split"][kept].replace("unlabelled", "train") == whole["split"][kept]).all()
    assert "unlabelled" not in split_metrics(whole, data.manifest, data.header)


def test_counts_that_a_class_does_not_have_are_refused() -> None:
    data = store([3, 9, 9], slices=4)
    with pytest.raises(UserError, match=r"split\.counts: 10 images of a for train, which has 4"):
        counts = {"train": 30, "val": 3, "test": 3}
        make_split(data.manifest, data.header, params(counts=counts), 0)


def sites(patients: list[int]) -> Any:
    """A store whose patients are of the sites A, B and C in turn, and of one scanner each."""
    data = store(patients, slices=2)
    numbers = pd.factorize(data.manifest["patient"])[0]
    data.manifest["site"] = pd.Series(numbers % 3).map({0: "A", 1: "B", 2: "C"})
    data.manifest["scanner"] = ["one", "two"] * (len(data.manifest) // 2)
    return data


def test_a_site_that_is_held_out_is_tested_and_nothing_else_is() -> None:
    data = sites([9, 9, 9])
    table = make_split(data.manifest, data.header, params(strategy="held_out", held_out={"site": ["B"]}), 0)
    assert ((table["split"] == "test") == (data.manifest["site"] == "B")).all()
    assert (table["split"].groupby(data.manifest["patient"]).nunique() == 1).all()
    others = pd.crosstab(table["label"], table["split"])[["train", "val"]]
    assert (others > 0).to_numpy().all()
    two = make_split(data.manifest, data.header, params(strategy="held_out", held_out={"site": ["B", "C"]}), 0)
    assert {*data.manifest["site"][two["split"] == "test"]} == {"B", "C"}


def test_a_group_that_cannot_be_held_out_is_refused() -> None:
    data = sites([9, 9, 9])
    for held, message in (
        (
            {"centre": ["B"]},
            r"held_out\.centre: the data have no such group\. Use one of data\.groups: scanner, site",
        ),
        ({"label": ["a"]}, r"held_out\.label: the data have no such group"),
        ({"site": ["D"]}, r"held_out\.site: no patient has 'D'\. Use values of the data: A, B, C"),
        ({"scanner": ["one"]}, r"held_out\.scanner: patient .* also has images outside \(27 such patients\)"),
    ):
        with pytest.raises(UserError, match=message):
            make_split(data.manifest, data.header, params(strategy="held_out", held_out=held), 0)
    with pytest.raises(UserError, match="class a has 1 patients, too few for train and val"):
        few = sites([2, 9, 9])
        make_split(few.manifest, few.header, params(strategy="held_out", held_out={"site": ["B"]}), 0)
    for changes in ({"strategy": "held_out"}, {"held_out": {"site": ["B"]}}):
        with pytest.raises(ValidationError, match="held_out names one group and its values"):
            params(**changes)
