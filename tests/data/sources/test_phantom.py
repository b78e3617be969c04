"""The phantom is reproducible, slices of a patient are similar, and grades are visible."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.data.audit.neighbours import thumbnails
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.phantom import RIPPLES
from medrobust.data.store import ImageStore
from tests.params import default_block

CLASSES = ["low", "middle", "high"]


def block(**changes: Any) -> DataParams:
    phantom = {"patients": dict.fromkeys(CLASSES, 4), "slices": 3, "difficulty": 0.0, "ripple": 0.0, "shift": 0.0}
    base = {
        "source": "phantom", "classes": CLASSES, "ordered": True, "image_size": 48, "channels": 1,
        "on_bad_image": "fail", "phantom": phantom, **changes,
    }  # fmt: skip
    return default_block(DataParams, "data", **base)


def make(folder: Path, seed: int = 0, **changes: Any) -> ImageStore:
    data = block(**changes)
    download(data, folder / "raw", seed)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return make(tmp_path_factory.mktemp("phantom"))


def test_a_seed_gives_the_same_images_and_another_seed_others(store: ImageStore, tmp_path: Path) -> None:
    assert make(tmp_path / "same").header.sha256 == store.header.sha256
    assert make(tmp_path / "other", seed=1).header.sha256 != store.header.sha256


def test_slices_of_a_patient_are_more_similar_than_those_of_others(store: ImageStore) -> None:
    vectors = thumbnails(store.images, np.arange(len(store.images)))
    similarity = vectors @ vectors.T
    patient, position = store.manifest["patient"].to_numpy(), store.manifest["slice"].to_numpy()
    same_height = (position[:, None] == position[None]) & (patient[:, None] != patient[None])
    neighbours = (np.abs(position[:, None] - position[None]) == 1) & (patient[:, None] == patient[None])
    assert similarity[neighbours].mean() > similarity[same_height].mean() - 0.02
    assert similarity[same_height].max() < 0.999, "two patients are the same"


def test_the_grade_darkens_the_middle_of_the_brain(store: ImageStore) -> None:
    middle = store.images[:, 14:34, 14:34].reshape(len(store.images), -1)
    dark = (middle < 60).mean(1)
    means = [dark[(store.manifest["label"] == label).to_numpy()].mean() for label in CLASSES]
    assert means[0] < means[1] < means[2]


def test_the_ripple_depends_on_the_grade_and_is_bounded_by_its_amplitude(
    store: ImageStore, tmp_path: Path
) -> None:
    site = {"patients": dict.fromkeys(CLASSES, 4), "slices": 3, "difficulty": 0.0, "ripple": 0.05, "shift": 0.0}
    rippled = make(tmp_path, phantom=site)
    change = rippled.images.astype(int) - store.images.astype(int)
    assert np.abs(change).max() <= np.ceil(0.05 * 255)
    wave = np.cos(2 * np.pi * RIPPLES * (np.arange(48) + 0.5) / 48)[:, None]
    # Air is clipped at zero, so only the brain is compared.
    inside = (change * wave)[:, 12:36, 12:36].mean((1, 2)) / 255
    means = [inside[(store.manifest["label"] == label).to_numpy()].mean() for label in CLASSES]
    assert means == pytest.approx([-0.025, 0.0, 0.025], abs=0.005)


def test_patients_have_groups_and_the_shift_changes_site_b_alone(store: ImageStore, tmp_path: Path) -> None:
    phantom = {"patients": dict.fromkeys(CLASSES, 4), "slices": 3, "difficulty": 0.0, "ripple": 0.0, "shift": 0.2}
    shifted = make(tmp_path, phantom=phantom)
    groups = ["sex", "age", "site"]
    assert store.header.groups == groups
    assert store.manifest[groups].equals(shifted.manifest[groups])
    assert (store.manifest.groupby("patient")[groups].nunique() == 1).all(axis=None)
    assert {*store.manifest["sex"]} == {"F", "M"}
    assert {*store.manifest["age"]} <= {"50 to 65", "65 to 75", "75 to 95"}
    other = (store.manifest["site"] == "B").to_numpy()
    assert 0 < other.sum() < len(other)
    assert np.array_equal(store.images[~other], shifted.images[~other])
    brain = store.images[other][:, 14:34, 14:34].astype(float)
    assert (shifted.images[other][:, 14:34, 14:34] / brain.clip(1)).mean() == pytest.approx(0.8, abs=0.02)


def test_a_named_site_has_all_patients_and_the_shift(store: ImageStore, tmp_path: Path) -> None:
    phantom = {"patients": dict.fromkeys(CLASSES, 4), "slices": 3, "difficulty": 0.0, "ripple": 0.0, "shift": 0.2,
               "site": "C"}  # fmt: skip
    shifted = make(tmp_path, phantom=phantom)
    assert set(shifted.manifest["site"]) == {"C"}
    assert list(shifted.manifest["patient"]) == ["C" + name for name in store.manifest["patient"]]
    brain = store.images[:, 14:34, 14:34].astype(float)
    assert (shifted.images[:, 14:34, 14:34] / brain.clip(1)).mean() == pytest.approx(0.8, abs=0.02)


def test_labels_are_mapped(tmp_path: Path) -> None:
    found = make(tmp_path, labels={"low": "high", "high": "low"}).manifest
    assert set(found["label"][found["id"].str.startswith("high")]) == {"low"}
    assert set(found["label"][found["id"].str.startswith("low")]) == {"high"}


def test_class_names_may_be_numbers(tmp_path: Path) -> None:
    phantom = {"patients": {0: 4, 1: 4}, "slices": 2, "difficulty": 0.0, "ripple": 0.0, "shift": 0.0}
    prepared = make(tmp_path, classes=[0, 1], phantom=phantom)
    assert prepared.header.classes == ["0", "1"]
    assert set(prepared.manifest["label"]) == {"0", "1"}


def test_colour_images_have_three_equal_channels(tmp_path: Path) -> None:
    images = make(tmp_path, channels=3).images
    assert images.shape[1:] == (48, 48, 3)
    assert (images[..., 0] == images[..., 1]).all()


def test_a_block_that_does_not_match_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.phantom: missing"):
        download(block(phantom=None), tmp_path / "raw", 0)
    with pytest.raises(UserError, match=r"data\.phantom\.patients: has the classes \['low', 'middle', 'high'\]"):
        download(block(classes=["low", "high"]), tmp_path / "raw", 0)
