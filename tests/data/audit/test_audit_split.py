"""The audit finds the faults of the test data, and nothing else."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medrobust.core.params.data import AuditParams
from medrobust.data.audit.audit_split import Audit, audit_split
from medrobust.data.audit.contact_sheet import contact_sheet
from medrobust.data.audit.pairs import equal_pixels
from medrobust.data.audit.verdict import decide_verdict
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore
from tests.data.stores import split_params as params
from tests.data.stores import store

RULES = AuditParams(near_duplicate=0.995, same_patient=0.9, on_leak="warn")


@pytest.fixture
def data() -> ImageStore:
    """24 patients of four slices."""
    return store([8, 8, 8])


@pytest.fixture
def table(data: ImageStore) -> pd.DataFrame:
    """Its patient split."""
    return make_split(data.manifest, data.header, params(), 0)


def rows_of(table: pd.DataFrame, name: str) -> np.ndarray:
    """Rows of one split."""
    return np.flatnonzero(table["split"] == name)


def copy_file(data: ImageStore, row: int, of: int) -> None:
    """Make one image a byte-identical copy of another."""
    data.images[row] = data.images[of]
    data.manifest.loc[row, "sha256"] = data.manifest["sha256"][of]


def test_a_patient_split_is_clean(data: ImageStore, table: pd.DataFrame) -> None:
    result = audit_split(data, table, RULES)
    assert (result.metrics["verdict"], result.metrics["reasons"]) == ("clean", [])
    assert result.metrics["nn_gap"] == 0
    assert result.metrics["near_pairs"] == len(result.pairs) == len(result.suspects) == 0
    assert result.metrics["patients_by_class"]["test"] == {"a": 2, "b": 2, "c": 2}


def test_a_random_split_leaks_and_the_nearest_neighbour_shows_it(data: ImageStore) -> None:
    table = make_split(data.manifest, data.header, params(strategy="random"), 0)
    metrics = audit_split(data, table, RULES).metrics
    assert metrics["verdict"] == "leaking"
    assert metrics["nn_accuracy"] == 1.0
    assert metrics["nn_accuracy_without_own_patient"] < 0.7
    assert metrics["nn_gap"] == 1 - metrics["nn_accuracy_without_own_patient"]
    assert any("test patients are also in train" in reason for reason in metrics["reasons"])


def test_near_copies_are_found(data: ImageStore, table: pd.DataFrame) -> None:
    test, val, train = (rows_of(table, name) for name in ("test", "val", "train"))
    data.images[test[0]] = data.images[train[0]] // 3
    data.images[train[5]] = data.images[val[2]] // 2
    result = audit_split(data, table, RULES)
    ids = data.manifest["id"]
    listed = list(zip(result.pairs["id"], result.pairs["other_id"], result.pairs["kind"], strict=True))
    assert listed == [(ids[test[0]], ids[train[0]], "near copy"), (ids[val[2]], ids[train[5]], "near copy")]
    assert result.metrics["near_pairs"] == result.metrics["near_pairs_across_splits"] == 2
    assert result.metrics["test_images_with_near_copy"] == 1
    assert result.metrics["verdict"] == "suspect"
    assert result.metrics["reasons"][:2] == [
        f"1 of {len(val)} val images have a near copy in train: tuning may be biased",
        f"1 of {len(test)} test images have a near copy in train or val",
    ]


def test_byte_identical_files_are_a_leak(data: ImageStore, table: pd.DataFrame) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    other_class = next(row for row in train if table["label"][row] != table["label"][test[1]])
    copy_file(data, train[0], of=test[0])
    copy_file(data, other_class, of=test[1])
    result = audit_split(data, table, RULES)
    metrics = result.metrics
    assert metrics["verdict"] == "leaking"
    assert metrics["test_images_with_exact_copy"] == metrics["exact_pairs_across_splits"] == 2
    assert metrics["images_with_two_labels"] == 2 + 2 * (table["label"][train[0]] != table["label"][test[0]])
    assert metrics["reasons"][0] == f"2 of {len(test)} test images have an exact copy in train or val"
    assert set(result.pairs["kind"]) == {"byte-identical"}
    assert set(result.pairs["row"]) == {test[0], test[1]}
    assert metrics["near_pairs_across_splits"] == metrics["near_pairs_with_two_labels"] == 0


def test_equal_pixels_in_files_of_other_bytes_are_a_leak(data: ImageStore, table: pd.DataFrame) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    data.images[test[3]] = data.images[train[7]]
    assert data.manifest["sha256"].is_unique
    result = audit_split(data, table, RULES)
    assert result.metrics["verdict"] == "leaking"
    assert result.metrics["reasons"][0] == f"1 of {len(test)} test images have an exact copy in train or val"
    assert result.metrics["test_images_with_near_copy"] == result.metrics["near_pairs"] == 0
    assert result.pairs[["row", "other_row", "kind"]].to_numpy().tolist() == [[test[3], train[7], "equal pixels"]]


def test_copies_of_validation_images_in_train_are_a_reason(data: ImageStore, table: pd.DataFrame) -> None:
    val, train = rows_of(table, "val"), rows_of(table, "train")
    data.images[train[0]] = data.images[val[0]]
    copy_file(data, train[1], of=val[1])
    copy_file(data, train[2], of=val[1])
    metrics = audit_split(data, table, RULES).metrics
    assert metrics["verdict"] == "suspect"
    assert f"2 of {len(val)} val images have an exact copy in train: tuning is biased" in metrics["reasons"]
    assert metrics["test_images_with_exact_copy"] == metrics["val_images_with_near_copy"] == 0
    assert metrics["exact_pairs_across_splits"] == 3


def grouped(data: ImageStore, table: pd.DataFrame, seed: int) -> set[frozenset[int]]:
    """Make groups of up to six equal images all over the splits; return the pairs that must be listed."""
    rows = np.random.default_rng(seed).permutation(len(table))
    groups = [rows[start : start + size] for start, size in ((0, 6), (6, 2), (8, 3), (11, 5), (16, 4))]
    for group in groups:
        for row in group[1:]:
            copy_file(data, row, of=group[0])
    facts = pd.DataFrame({"split": table["split"], "label": table["label"], "patient": data.manifest["patient"]})
    return {
        frozenset((int(a), int(b))) for group in groups for a, b in combinations(group, 2)
        if (facts.loc[a] != facts.loc[b]).any()
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_every_pair_of_a_group_of_copies_is_listed(seed: int, data: ImageStore, table: pd.DataFrame) -> None:
    expected = grouped(data, table, seed)
    result = audit_split(data, table, RULES)
    pairs = result.pairs
    assert sorted(map(frozenset, zip(pairs["row"], pairs["other_row"], strict=True)), key=sorted) == sorted(
        expected, key=sorted
    )
    across = pairs[pairs["split"] != pairs["other_split"]]
    assert result.metrics["exact_pairs_across_splits"] == len(across) > 0
    listed = {*across["row"][across["split"] == "test"]}
    assert result.metrics["test_images_with_exact_copy"] == len(listed)


def test_of_too_many_copies_those_of_test_images_are_listed_first_and_all_are_counted(
    data: ImageStore, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medrobust.data.audit.pairs.MAX_PAIRS", 100)
    for row in range(1, len(table)):
        copy_file(data, row, of=0)
    result = audit_split(data, table, RULES.model_copy(update={"near_duplicate": 1.0, "same_patient": 1.0}))
    n = table["split"].value_counts()
    assert result.metrics["exact_pairs_across_splits"] == (
        n["test"] * n["train"] + n["test"] * n["val"] + n["val"] * n["train"]
    )
    exact = result.pairs[result.pairs["kind"] == "byte-identical"]
    assert 0 < len(exact) <= 200
    assert set(exact["split"]) == {"test"}


def test_images_are_grouped_by_their_pixels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 2, (2500, 2, 2, 3), dtype=np.uint8)
    expected = np.unique(images.reshape(2500, -1), axis=0, return_inverse=True)[1]
    np.save(tmp_path / "images.npy", images)
    for stored in (images, np.load(tmp_path / "images.npy", mmap_mode="r"), np.asfortranarray(images)):
        found = equal_pixels(stored)
        assert len(set(zip(found, expected, strict=True))) == len(set(expected)) == len(set(found))


def test_a_blank_file_in_two_splits_is_an_exact_copy_but_not_a_near_copy(
    data: ImageStore, table: pd.DataFrame
) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    data.images[[test[0], train[0], train[9]]] = 0
    copy_file(data, train[0], of=test[0])
    result = audit_split(data, table, RULES)
    assert (result.metrics["exact_pairs_across_splits"], result.metrics["near_pairs"]) == (2, 0)
    assert result.pairs["kind"].tolist() == ["byte-identical", "equal pixels", "equal pixels"]


def test_near_copies_inside_a_split_count_when_their_labels_differ(data: ImageStore, table: pd.DataFrame) -> None:
    train = rows_of(table, "train")
    first, other = train[0], next(row for row in train[::-1] if table["label"][row] != table["label"][train[0]])
    patient = data.manifest["patient"]
    same = np.flatnonzero((patient == patient[other]) & (np.arange(len(patient)) != other))[0]
    data.images[same], data.images[other] = data.images[first] // 2, data.images[first] // 3
    result = audit_split(data, table, RULES)
    assert (result.metrics["near_pairs"], result.metrics["near_pairs_with_two_labels"]) == (3, 2)
    assert result.metrics["near_pairs_across_splits"] == 0
    assert "2 of 3 pairs of near copies have different labels" in result.metrics["reasons"]


def test_synthetic_children_of_test_patients_are_a_leak(data: ImageStore, table: pd.DataFrame) -> None:
    test = rows_of(table, "test")
    child = data.manifest.iloc[[test[0]]].assign(id="child", kind="synthetic", parent=data.manifest["id"][test[0]])
    child = child.assign(sha256="child", patient="")
    orphan = child.assign(id="orphan", sha256="orphan", parent="")
    manifest = pd.concat([data.manifest, child, orphan], ignore_index=True)
    images = np.concatenate([data.images, 255 - data.images[test[:2]]])
    row = {"split": "train", "label": table["label"][test[0]], "reason": ""}
    table = pd.concat([table, pd.DataFrame([{"id": "child", **row}, {"id": "orphan", **row}])], ignore_index=True)
    metrics = audit_split(ImageStore(images, manifest, data.header), table, RULES).metrics
    assert metrics["verdict"] == "leaking"
    assert metrics["synthetic_children_of_test_patients"] == metrics["synthetic_of_unknown_parent"] == 1
    assert metrics["test_patients_in_train"] == metrics["synthetic_exact_copies"] == 0
    found = [reason for reason in metrics["reasons"] if "synthetic" in reason]
    assert found == [
        "1 of 2 synthetic images were made from test patients and are in train or val",
        "1 of 2 synthetic images have no known parent",
    ]


def test_a_synthetic_image_with_the_pixels_of_a_real_one_is_its_copy(
    data: ImageStore, table: pd.DataFrame
) -> None:
    data.manifest.loc[[0, 5], "kind"] = "synthetic"
    data.images[0] = data.images[9]
    metrics = audit_split(data, table, RULES).metrics
    assert (metrics["synthetic_exact_copies"], metrics["synthetic_images"]) == (1, 2)


def one_person(data: ImageStore, first: str, second: str, seed: int) -> None:
    """Give the second patient's slices the anatomy of the first, slightly changed."""
    rng = np.random.default_rng(seed)
    patient = data.manifest["patient"]
    anatomy = data.images[patient == first].astype(int)
    changed = np.clip(anatomy + rng.integers(-4, 5, anatomy.shape), 0, 255)
    data.images[np.flatnonzero(patient == second)] = changed


def test_one_person_under_two_ids_is_suspected(data: ImageStore, table: pd.DataFrame) -> None:
    owner = {name: data.manifest["patient"][rows_of(table, name)[0]] for name in ("train", "test")}
    one_person(data, owner["train"], owner["test"], seed=1)
    strict = RULES.model_copy(update={"near_duplicate": 1.0})
    result = audit_split(data, table, strict)
    assert result.metrics["look_alike_patients"] == result.metrics["look_alike_patients_across_test"] == 1
    assert result.metrics["test_images_of_look_alike_patients_across"] == 4
    assert set(result.suspects["patient"]) == set(owner.values())
    assert set(result.suspects["kind"]) == {"look-alike patients"}
    assert result.metrics["reasons"] == ["2 of 24 patient ids look like another one: they may be one person"]


def test_without_ids_patients_are_suspected_by_their_similarity() -> None:
    data = store([4, 4, 4])
    true = data.manifest["patient"].copy()
    data.manifest["patient"] = ""
    table = make_split(data.manifest, data.header, params(strategy="random"), 0)
    result = audit_split(data, table, RULES)
    assert result.metrics["verdict"] == "suspect"
    assert result.metrics["real_images_without_patient"] == 48
    truth = dict(zip(data.manifest["id"], true, strict=True))
    assert (result.suspects["id"].map(truth).groupby(result.suspects["suspect"]).nunique() == 1).all()
    assert (len(result.suspects), result.suspects["suspect"].nunique()) == (48, 12), "a suspect is a whole patient"
    across, test = (result.metrics[name] for name in ("test_images_of_suspected_patients_across", "test_images"))
    without = result.metrics["nn_accuracy_without_suspected_patient"]
    assert across > 0
    assert result.metrics["reasons"] == [
        "48 of 48 real images have no patient id: overlap cannot be ruled out",
        f"{across} of {test} test images may be of the same patient as similar images in train or val: a patient "
        "id is missing",
        f"on test images without a patient id, the accuracy of a 1-nearest-neighbour falls by {1 - without:.1%}, "
        f"to {without:.1%}, without images of the suspected patient",
    ]
    assert (result.metrics["nn_gap"], result.metrics["nn_accuracy"]) == (0, 1)
    data.manifest["patient"] = true
    assert without == audit_split(data, table, RULES).metrics["nn_accuracy_without_own_patient"] < 0.7


def test_a_single_test_patient_of_a_class_is_suspect() -> None:
    data = store([8, 8, 3])
    metrics = audit_split(data, make_split(data.manifest, data.header, params(), 0), RULES).metrics
    assert metrics["reasons"] == ["only one test patient of c: metrics of the class describe one person"]


def test_a_class_without_test_images_is_suspect() -> None:
    data = store([8, 8, 2])
    table = make_split(data.manifest, data.header, params(small_class="train_only"), 0)
    metrics = audit_split(data, table, RULES).metrics
    assert metrics["reasons"] == ["no test image of c: metrics do not cover the class"]
    assert metrics["verdict"] == "suspect"
    data.manifest["patient"] = ""  # no patient is known, but a and b are still in test
    reasons = audit_split(data, table, RULES).metrics["reasons"]
    assert [reason for reason in reasons if reason.startswith("no test image")] == metrics["reasons"]


def test_without_other_patients_there_is_no_gap() -> None:
    data = store([8, 8, 8])
    data.manifest["patient"] = "only"
    table = make_split(data.manifest, data.header, params(strategy="random"), 0)
    metrics = audit_split(data, table, RULES).metrics
    assert metrics["nn_accuracy_without_own_patient"] is None is metrics["nn_gap"]
    assert decide_verdict(metrics)[0] == "leaking"


def test_the_closeness_curve_falls_from_one_to_the_share_of_copies(data: ImageStore, table: pd.DataFrame) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    data.images[test[:3]] = data.images[train[:3]]
    curve = audit_split(data, table, RULES).closeness
    for name in ("with_own_patient", "without_own_patient"):
        assert curve[name].is_monotonic_decreasing
        assert (curve[name].iloc[0], curve[name].iloc[-1]) == (1.0, pytest.approx(3 / len(test), abs=1e-4))


def sheet(data: ImageStore, result: Audit, folder: Path) -> np.ndarray:
    contact_sheet(data, result.pairs, result.nearest, folder)
    with Image.open(folder / "pairs.png") as image:
        return np.asarray(image)


def test_the_sheet_shows_the_worst_pair_first(data: ImageStore, table: pd.DataFrame, tmp_path: Path) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    data.images[test[4]] = data.images[train[4]]
    pixels = sheet(data, audit_split(data, table, RULES), tmp_path)
    expected = np.asarray(Image.fromarray(data.images[test[4]]).convert("RGB").resize((128, 128)))
    np.testing.assert_array_equal(pixels[8:136, 8:136], expected)
    np.testing.assert_array_equal(pixels[8:136, 144:272], expected)
    shown = pd.read_csv(tmp_path / "shown.csv")
    assert shown["pair"].tolist() == list(range(1, len(shown) + 1))
    assert shown[["id", "other_id"]].iloc[0].tolist() == data.manifest["id"].iloc[[test[4], train[4]]].tolist()
    plain = store([3, 3, 3])
    few = make_split(plain.manifest, plain.header, params(), 0)
    assert sheet(plain, audit_split(plain, few, RULES), tmp_path).shape[0] == 3 * 180


def test_unlabelled_images_leak_like_those_of_train(data: ImageStore, table: pd.DataFrame) -> None:
    test, train = rows_of(table, "test"), rows_of(table, "train")
    data.images[train[0]] = data.images[test[0]]
    as_train = audit_split(data, table, RULES).metrics
    assert as_train["verdict"] == "leaking"
    table.loc[train, "split"] = "unlabelled"
    table.loc[train[4:], "split"] = "train"
    assert audit_split(data, table, RULES).metrics == as_train
