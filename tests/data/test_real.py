"""The two public Alzheimer releases: patients are recovered and leaks measured."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust.core.params.data import AuditParams, SplitParams
from medrobust.data.audit.audit_split import audit_split
from medrobust.data.audit.neighbours import search, thumbnails
from medrobust.data.prepare import download, prepare
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore
from tests.params import default_block

pytestmark = pytest.mark.slow
CLASSES = ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]


def prepared(params: Any, archive: Path, folder: Path) -> ImageStore:
    data = params(path=str(archive), classes=CLASSES, image_size=48)
    download(data, folder / "raw", seed=0)
    prepare(data, folder / "raw", folder / "prepared")
    return ImageStore.open(folder / "prepared")


def own_patient_is_nearest(store: ImageStore) -> float:
    """Share of the real slices whose nearest neighbour is of the same patient; file names are not used."""
    rows = np.flatnonzero(store.manifest["kind"] == "real")
    patient = store.manifest["patient"].to_numpy()[rows]
    unknown, no_test = np.full(len(rows), -1), np.zeros(len(rows), dtype=bool)
    nearest = search(thumbnails(store.images, rows), unknown, no_test, near_duplicate=1.0).other_patients
    return float((patient[nearest.index] == patient).mean())


def test_the_earlier_release_gives_200_patients_of_32_slices(
    params: Any, shared_data: Path, tmp_path: Path
) -> None:
    store = prepared(params, shared_data / "alzheimers-dataset-4-class-of-images.zip", tmp_path)
    assert len(store.manifest) == 6400
    assert (store.manifest["patient"].value_counts() == 32).all()
    assert store.manifest["patient"].nunique() == 200
    assert not store.manifest.duplicated(["patient", "slice"]).any()
    assert own_patient_is_nearest(store) == 1.0


def test_the_later_release_leaks_as_published(params: Any, shared_data: Path, tmp_path: Path) -> None:
    store = prepared(params, shared_data / "alzheimer-11519.zip", tmp_path)
    real = store.manifest[store.manifest["kind"] == "real"]
    assert (len(real), real["patient"].nunique()) == (6400, 200)
    assert own_patient_is_nearest(store) == 1.0
    with (shared_data / "alzheimer-11519-patients.csv").open() as file:
        known = {row["path"]: row["kind"] for row in csv.DictReader(file)}
    assert dict(zip(store.manifest["id"], store.manifest["kind"], strict=True)) == known
    choice = {"val": 0.2, "test": 0.25, "small_class": "merge", "merge": {"ModerateDemented": "MildDemented"}}
    rules = default_block(AuditParams, "audit")
    published = default_block(SplitParams, "split", strategy="published")
    metrics = audit_split(store, make_split(store.manifest, store.header, published, 1), rules).metrics
    assert metrics["verdict"] == "leaking"
    assert (metrics["test_patients"], metrics["test_patients_in_train"]) == (200, 200)
    assert metrics["synthetic_exact_copies"] == 182
    assert metrics["nn_accuracy"] == pytest.approx(0.997, abs=0.003)
    assert metrics["nn_accuracy_without_own_patient"] == pytest.approx(metrics["majority_accuracy"], abs=0.02)
    for strategy in ("patient", "kfold"):
        split = default_block(SplitParams, "split", strategy=strategy, **choice)
        metrics = audit_split(store, make_split(store.manifest, store.header, split, 1), rules).metrics
        assert metrics["test_patients_in_train"] == 0
        assert metrics["verdict"] == "clean", metrics["reasons"]
