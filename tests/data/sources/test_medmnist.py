"""MedMNIST files: flags, sizes, published facts, and files that are refused."""

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
    assert store.header.licence == "CC BY 4.0"


def test_grades_without_names_are_mapped_by_their_number(make: Make, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(labels=1))
    store = make(block(tmp_path / "mine.npz", labels={"0": "normal", "1": "pneumonia"}))
    assert store.header.counts == {"normal": 6, "pneumonia": 6}
    assert store.header.verified.startswith("nothing")


def test_the_file_is_compared_with_the_published_facts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pneumoniamnist_64.npz"
    np.savez(path, **arrays((64, 64)))
    assert "neither md5 nor counts" in make(block(path)).header.verified
    flags = medmnist._flags()
    flags["pneumoniamnist"]["images"] = {"train": 4, "val": 4, "test": 4}
    monkeypatch.setattr(medmnist, "_flags", lambda: flags)
    assert make(block(path)).header.verified == "counts of the published splits (the md5 differs)"
    flags["pneumoniamnist"]["md5"]["64"] = file_hash(path, "md5")
    assert make(block(path)).header.verified == "md5 of the published file"


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
            {**arrays(), "train_images": np.array(["x", None], dtype=object)},
            r"truncated or not an npz|images of object",
        ),
    ],
)
def test_a_file_without_2d_images_is_reported(
    content: dict[str, Any], message: str, make: Make, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message):
        make(block(tmp_path / "a.npz"))


def test_a_truncated_file_is_reported(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "octmnist.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match="truncated or not an npz"):
        make(block(path))
