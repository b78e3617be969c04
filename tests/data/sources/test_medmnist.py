"""MedMNIST files: flags, sizes, published facts, and files that are refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust.core.errors import UserError
from medrobust.core.records import file_hash
from medrobust.data.sources import medmnist
from tests.data.sources.conftest import Make

Sample = Callable[[str], dict[str, Any]]


def arrays(shape: tuple[int, ...] = (28, 28), labels: int = 1, count: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        name: value
        for split in ("train", "val", "test")
        for name, value in (
            (f"{split}_images", rng.integers(0, 256, (count, *shape), dtype=np.uint8)),
            (f"{split}_labels", np.arange(count * labels, dtype=np.uint8).reshape(count, labels) % 2),
        )
    }


def block(path: Path, **changes: Any) -> dict[str, Any]:
    return {"source": "medmnist", "path": str(path), "classes": ["normal", "pneumonia"], **changes}


def test_pixels_labels_and_splits_are_read(make: Make, tmp_path: Path) -> None:
    content = arrays()
    np.savez(tmp_path / "pneumoniamnist.npz", **content)
    store = make(block(tmp_path / "pneumoniamnist.npz"), image_size=28)
    for split in ("train", "val", "test"):
        rows = (store.manifest["published_split"] == split).to_numpy()
        assert np.array_equal(store.images[rows], content[f"{split}_images"])
        assert store.manifest["label"][rows].tolist() == ["normal", "pneumonia"] * 2


def test_grades_without_names_are_mapped_by_their_number(make: Make, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(labels=1))
    store = make(block(tmp_path / "mine.npz", labels={"0": "normal", "1": "pneumonia"}))
    assert store.header.counts == {"normal": 6, "pneumonia": 6}
    assert store.header.verified.startswith("nothing")


def test_the_file_is_compared_with_the_published_facts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pneumoniamnist_64.npz"
    np.savez(path, **arrays((64, 64)))
    header = make(block(path)).header
    assert header.verified == "nothing (the md5 differs)"
    assert (header.licence, header.citation, header.url) == ("unknown", "unknown", "")
    assert header.doubt == (
        "pneumoniamnist_64.npz has the name of a MedMNIST file, but its md5 is not the published one: it has "
        "4 + 4 + 4 images in train, val and test, published are 4708 + 524 + 624"
    )
    assert f"prepare: {header.doubt}\n" in capsys.readouterr().out
    flags = medmnist._flags()
    flags["pneumoniamnist"]["images"] = {"train": 4, "val": 4, "test": 4}
    monkeypatch.setattr(medmnist, "_flags", lambda: flags)
    header = make(block(path)).header
    assert header.verified == "counts of the published splits (the md5 differs)"
    assert header.licence == "unknown"
    assert header.doubt.endswith("the counts of train, val and test are, so a part of the content differs")
    flags["pneumoniamnist"]["md5"]["64"] = file_hash(path, "md5")
    header = make(block(path)).header
    assert (header.verified, header.doubt) == ("md5 of the published file", "")
    assert (header.licence, header.url) == ("CC BY 4.0", "https://medmnist.com")


def test_a_flag_is_downloaded_with_its_md5(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = []

    def download(url: str, target: Path, md5: str) -> None:
        downloaded.append((url, md5))
        np.savez(target, **arrays((64, 64)))

    monkeypatch.setattr(medmnist, "download_file", download)
    assert len(make({**block(tmp_path), "path": "pneumoniamnist_64"}).images) == 12
    assert downloaded == [
        (
            "https://zenodo.org/records/10519652/files/pneumoniamnist_64.npz?download=1",
            "8f4eceb4ccffa70c672198ea285246c6",
        )
    ]


@pytest.mark.parametrize("name", ["mnist", "octmnist_65", "cifar10", "../octmnist"])
def test_an_unknown_flag_lists_the_known_ones(name: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a flag of MedMNIST.*Use one of: pathmnist, chestmnist, .*_224"):
        make({**block(tmp_path), "path": name})


def test_the_facts_of_every_flag_are_complete() -> None:
    flags = medmnist._flags()
    assert {"octmnist", "pneumoniamnist", "retinamnist", "dermamnist"} <= set(flags)
    for flag in flags.values():
        assert set(flag["images"]) == {"train", "val", "test"}
        assert all(len(md5) == 32 for md5 in flag["md5"].values())
        assert set(flag["md5"]) in ({"28", "64", "128", "224"}, {"28", "64"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays((28, 28, 28)), r"images of uint8 with shape \(28, 28, 28\).*without 3d"),
        (arrays(labels=14), r"14 labels per image.*one label per image"),
        ({"images": np.zeros(3)}, r"contains no train_images, but images\.npy"),
        (
            {**arrays(), "val_images": np.array(["x", None], dtype=object)},
            r"val_images: contains Python objects.*astype\(np\.uint8\)",
        ),
        ({**arrays(), "test_images": np.zeros((4, 0, 28), np.uint8)}, r"images of uint8 with shape \(0, 28\)"),
        ({**arrays(), "test_images": np.zeros((4, 28, 28))}, "test_images: contains images of float64.*as uint8"),
    ],
)
def test_a_file_without_2d_images_is_reported(
    content: dict[str, Any], message: str, make: Make, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message):
        make(block(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "member",
    [
        b"hello",
        b"\x93NUMPY\x01\x00\x10\x00{'a': __import__}",  # a header that is no dictionary
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'fortran_order': False, 'shape': (2305843009213693952,)}\n",
        b"\x93NUMPY\x01\x00\x36\x00{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}\n12",
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_damaged_array_is_reported(member: bytes, make: Make, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "plain.npz") as plain, zipfile.ZipFile(tmp_path / "mine.npz", "w") as changed:
        for name in plain.namelist():
            changed.writestr(name, member if name == "val_labels.npy" else plain.read(name))
    with pytest.raises(UserError, match="truncated or not an npz"):
        make(block(tmp_path / "mine.npz"))


def test_a_truncated_file_is_reported(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "octmnist.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match="truncated or not an npz"):
        make(block(path))


def with_labels(labels: Any, split: str = "train", **more: Any) -> dict[str, Any]:
    """The arrays with other labels in one split."""
    return {**arrays(**more), f"{split}_labels": labels}


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["normal", None] * 2, dtype=object), r"_labels: contains Python objects.*astype\(str\)"),
        (np.array([(1, "x")] * 4, dtype=[("a", "i4"), ("b", "O")]), "contains Python objects"),
        (np.arange(4, dtype=complex), r"_labels: contains complex128\. Save the labels as numbers or text"),
        (np.zeros((4, 1, 1)), r"_labels: has the shape \(4, 1, 1\)\. Save one label per image"),
        (np.eye(4, 2), r"_labels: has 2 labels per image\. Use a file with one label per image"),
        (np.zeros(3), r"_labels: has 3 labels for 4 images"),
        (np.zeros((5, 1)), r"_labels: has 5 labels for 4 images"),
        (np.array([0, 1, -1, 1]), r"'-1' \(1, first: (train|val|test)/000002\)"),
        (np.array([0, 0.5, 1, 1]), r"'0\.5' \(1, first: (train|val|test)/000001\)"),
        (np.array([0, np.nan, 1, 1]), r"'' \(1, first: (train|val|test)/000001\).*'': null"),
        (np.array([0, np.inf, 1, 1]), "'inf' "),
        (np.array([0, 1e20, 1, 1]), "labels that are not a class: '1"),
    ],
)
def test_labels_that_are_no_class_per_image_are_reported(
    labels: np.ndarray, message: str, split: str, make: Make, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", **with_labels(labels, split))
    with pytest.raises(UserError, match=message):
        make(block(tmp_path / "mine.npz", labels={"0": "normal", "1": "pneumonia"}))


@pytest.mark.parametrize("name", ["mine", "breastmnist"])
def test_a_label_that_is_no_number_of_a_flag_is_not_counted_from_its_end(
    name: str, make: Make, tmp_path: Path
) -> None:
    np.savez(tmp_path / f"{name}.npz", **with_labels(np.array([0, 1, -1, 2])))
    with pytest.raises(UserError, match=r"'-1' .*'2' "):
        make(block(tmp_path / f"{name}.npz", labels={"0": "normal", "1": "pneumonia"},
                   classes=["malignant", "normal, benign", "normal", "pneumonia"]))  # fmt: skip


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0.0, 1, 1, 0]),
        np.array([[0.0], [1], [1], [0]], dtype=np.float32),
        np.array([False, True, True, False]),
        np.array(["0", "1", "1.0", "0"]),
        np.array([b"0", b"1", b"1", b"0"]),
        np.asfortranarray(np.array([[0], [1], [1], [0]], dtype=">i8")),
    ],
)
def test_labels_of_every_plain_type_are_read(labels: np.ndarray, make: Make, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **with_labels(labels))
    names = {"0": "normal", "1": "pneumonia", "False": "normal", "True": "pneumonia"}
    manifest = make(block(tmp_path / "mine.npz", labels=names)).manifest
    assert manifest["label"].tolist()[:4] == ["normal", "pneumonia", "pneumonia", "normal"]


def test_float_labels_of_a_flag_have_its_names(make: Make, tmp_path: Path) -> None:
    np.savez(tmp_path / "breastmnist.npz", **with_labels(np.array([0.0, 1, 1, 0])))
    manifest = make(block(tmp_path / "breastmnist.npz", classes=["malignant", "normal, benign"])).manifest
    assert manifest["label"].tolist()[:4] == ["malignant", "normal, benign", "normal, benign", "malignant"]


def test_one_channel_and_an_empty_split_are_read(make: Make, tmp_path: Path) -> None:
    content = arrays((28, 28, 1))
    content |= {"val_images": content["val_images"][:0], "val_labels": content["val_labels"][:0]}
    np.savez(tmp_path / "mine.npz", **content)
    store = make(block(tmp_path / "mine.npz", labels={"0": "normal", "1": "pneumonia"}), image_size=28)
    assert np.array_equal(store.images[:4], content["train_images"][..., 0])
    assert store.manifest["published_split"].tolist() == ["train"] * 4 + ["test"] * 4
