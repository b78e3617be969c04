"""External data are prepared as the own ones, with all labels named, and read with the classes of a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.external import ExternalSetParams
from medrobust.core.records import read_json
from medrobust.data.external import as_test_set, prepare_external, with_classes
from medrobust.data.images import decode
from medrobust.data.split import make_split
from medrobust.data.store import ImageStore, SplitStore
from tests.data.stores import split_params, store
from tests.params import default_block

OWN = default_block(DataParams, "data", classes=["low", "middle", "high"], image_size=24, phantom=None)


def write_images(folder: Path, *labels: str) -> None:
    """Write an image of noise per label, into the folder of its label."""
    for number, label in enumerate(labels):
        path = folder / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def block(folder: Path, classes: dict[str, str | None], **changes: Any) -> ExternalSetParams:
    """An external set of images in folders."""
    values = {
        "source": "archive",
        "path": str(folder),
        "classes": classes,
        "suites": [],
        "patient_suites": [],
        **changes,
    }
    return ExternalSetParams.model_validate(values)


def test_images_are_decoded_as_the_own_ones_and_labels_mapped(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "CN", "CN", "AD", "MCI")
    classes = {"CN": "low", "AD": "high", "MCI": None}
    prepare_external("b", block(tmp_path / "in", classes), OWN, tmp_path / "data" / "b", 1)
    found = ImageStore.open(tmp_path / "data" / "b")
    assert dict(zip(found.manifest["id"], found.manifest["label"], strict=True)) == {
        "AD/2.png": "high", "CN/0.png": "low", "CN/1.png": "low",
    }  # fmt: skip
    assert found.header.left_out == {"MCI": 1}
    expected = decode((tmp_path / "in" / "CN" / "0.png").read_bytes(), 24, 1)
    assert np.array_equal(found.images[list(found.manifest["id"]).index("CN/0.png")], expected)
    files = {path.name for path in (tmp_path / "data" / "b").iterdir()}
    assert files == {"header.json", "images.npy", "manifest.csv", "source.json"}
    assert read_json(tmp_path / "data" / "b" / "source.json")["data.path"], "make repro sees edits by this hash"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            ["CN", "low"],
            {"CN": "low"},
            r"low/1\.png is not in a folder .*map the folder in external\.sets\.b\.classes",
        ),
        (
            ["CN"],
            {"CN": "low", "AD": "high"},
            r"external\.sets\.b\.classes: high: no image of this class.*from external\.sets\.b\.classes",
        ),
        (
            ["CN"],
            {"AD": "high", "CN": None},
            r"external\.sets\.b\.classes: high: no image of this class.*from external\.sets\.b\.classes",
        ),
    ],
)
def test_a_label_without_a_class_and_a_class_without_images_are_refused(
    labels: list[str], classes: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    write_images(tmp_path / "in", *labels)
    with pytest.raises(UserError, match=message):
        prepare_external("b", block(tmp_path / "in", classes), OWN, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_an_error_names_the_key_of_the_set(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "CN")
    for changes, message in (
        ({"ignore": ["*_mask*"]}, r"params\.yaml: external\.sets\.b\.ignore: \*_mask\*: matches no file"),
        ({"sha256": "0" * 64}, r"params\.yaml: external\.sets\.b\.sha256"),
        ({"source": "phantom", "path": None}, r"params\.yaml: external\.sets\.b\.phantom: missing"),
        (
            {
                "source": "phantom",
                "path": None,
                "phantom": {"patients": {"low": 1}, "slices": 1, "difficulty": 0.0, "ripple": 0.0, "shift": 0.0},
            },
            r"external\.sets\.b\.phantom\.patients: has the classes \['low'\]\. Use data\.classes: \['low', 'mid",
        ),
        ({"source": "disk"}, r"params\.yaml: external\.sets\.b\.source: no source 'disk'"),
        ({"path": str(tmp_path / "nothing")}, r"params\.yaml: external\.sets\.b\.path"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_external("b", block(tmp_path / "in", {"CN": "low"}, **changes), OWN, tmp_path / "out", 1)


def test_sets_of_the_phantom_have_other_patients_than_the_own_data(tmp_path: Path) -> None:
    phantom = {"patients": {"low": 2, "middle": 2, "high": 2}, "slices": 1, "difficulty": 0.5, "ripple": 0.0,
               "shift": 0.0, "site": "C"}  # fmt: skip
    classes = {"low": "low", "middle": None, "high": "high"}
    hashes = []
    for name in ("b", "c"):
        own = block(tmp_path, classes, source="phantom", path=None, phantom=phantom)
        prepare_external(name, own, OWN, tmp_path / name, 1)
        found = ImageStore.open(tmp_path / name)
        hashes.append(found.header.sha256)
    assert hashes[0] != hashes[1]
    assert set(found.manifest["site"]) == {"C"}
    assert all(patient.startswith("C") for patient in found.manifest["patient"])
    assert (set(found.manifest["label"]), found.header.left_out) == ({"low", "high"}, {"middle": 2})


def test_all_images_are_test_images_with_merged_classes() -> None:
    data, other = store([8, 8, 8]), store([2, 2, 0], seed=1)
    merge = split_params(small_class="merge", merge={"b": "c"})
    own = SplitStore(data, make_split(data.manifest, data.header, merge, 0))
    found = as_test_set(other, own)
    assert set(found.table["split"]) == {"test"}
    assert list(found.table["label"]) == ["a"] * 8 + ["c"] * 8
    subset = found.subset("test")
    assert subset.classes == ["a", "c"]
    read = with_classes(subset, ["c", "b", "a"])
    assert [read.classes[label] for label in read.labels] == ["a"] * 8 + ["c"] * 8
    with pytest.raises(
        UserError, match=r"has images of c, which the model does not know\. Map its labels to one of: a"
    ):
        with_classes(replace(subset), ["a", "b"])
