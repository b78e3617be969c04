"""Uploaded files: read as `predict` reads them, and deleted."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust.app.uploads import read_upload
from medrobust.data.inputs import Inputs, Reader
from medrobust.inference.loaded import LoadedModel, open_model
from tests.app.published import CLASSES, SIZE, pixels, publish
from tests.data.sources.dicom_series import two_series


def uploaded(tmp_path: Path, *sources: Path) -> list[Path]:
    """Copies of files as Gradio leaves them: each in a folder of its own."""
    paths = []
    for number, source in enumerate(sources):
        paths.append(tmp_path / "uploads" / str(number) / source.name)
        paths[-1].parent.mkdir(parents=True)
        shutil.copy(source, paths[-1])
    return paths


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)
    return path


def left(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


def test_a_picture_is_read_and_deleted(tmp_path: Path, model: LoadedModel) -> None:
    upload = read_upload(uploaded(tmp_path, picture(tmp_path / "scan.png")), {"m": model})
    (image,) = upload.files["m"].images
    np.testing.assert_array_equal(image.pixels, pixels())
    assert (image.file, upload.count, left(tmp_path)) == ("scan.png", 1, [])
    assert upload.answers_for_patients("m", model) == []


def test_pictures_of_the_same_name_are_all_read(tmp_path: Path, model: LoadedModel) -> None:
    sources = [picture(tmp_path / str(seed) / "scan.png", seed) for seed in range(3)]
    upload = read_upload(uploaded(tmp_path, *sources), {"m": model})
    assert [image.file for image in upload.files["m"].images] == ["1-scan.png", "2-scan.png", "scan.png"]
    assert upload.files["m"].faults == []
    assert left(tmp_path) == []


def test_the_slices_of_a_series_belong_together(tmp_path: Path, model: LoadedModel) -> None:
    two_series(tmp_path)
    series = sorted((tmp_path / "series" / "one").iterdir())
    upload = read_upload(uploaded(tmp_path, *series), {"m": model})
    images = upload.files["m"].images
    assert [image.slice for image in images] == [0, 1, 2, 3]
    (patient,) = upload.answers_for_patients("m", model)
    assert (patient.images, patient.unit, list(patient.probabilities)) == (4, "patient", CLASSES)
    assert upload.answers_for_patients("m", model) is upload.patients["m"], "asked once"
    assert left(tmp_path) == []


def test_a_file_that_is_no_image_is_named_and_the_others_are_read(tmp_path: Path, model: LoadedModel) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    upload = read_upload(uploaded(tmp_path, text, picture(tmp_path / "scan.png")), {"m": model})
    (fault,) = upload.files["m"].faults
    assert fault.file == "notes.txt"
    assert fault.reason
    assert str(tmp_path) not in fault.reason
    assert [image.file for image in upload.files["m"].images] == ["scan.png"]
    assert left(tmp_path) == []


def test_a_table_cannot_make_the_page_read_other_files(tmp_path: Path, model: LoadedModel) -> None:
    secret, table = picture(tmp_path / "secret.png"), tmp_path / "list.csv"
    table.write_text(f"path\n{secret}\n")
    upload = read_upload(uploaded(tmp_path, table), {"m": model})
    assert upload.files["m"].images == []
    (fault,) = upload.files["m"].faults
    assert (fault.file, fault.reason) == ("list.csv", "is a table; use it with `medrobust predict`")


def test_models_with_the_same_input_share_one_reading(
    tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    find = Reader.find

    def counted(reader: Reader, paths: Iterable[Path]) -> Inputs:
        calls.append(reader)
        return find(reader, paths)

    monkeypatch.setattr(Reader, "find", counted)
    larger = open_model(publish(tmp_path / "larger", size=2 * SIZE, guarded=False))
    models = {"one": model, "two": model, "larger": larger}
    upload = read_upload(uploaded(tmp_path, picture(tmp_path / "scan.png")), models)
    sizes = {name: read.images[0].pixels.shape for name, read in upload.files.items()}
    assert sizes == {"one": (SIZE, SIZE), "two": (SIZE, SIZE), "larger": (2 * SIZE, 2 * SIZE)}
    assert len(calls) == 2
