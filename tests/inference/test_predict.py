"""Predictions do not depend on the form of the input; patients are answered by the fitted aggregate."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import medrobust
from medrobust.core.errors import UserError
from medrobust.core.records import read_json, write_json
from medrobust.inference.loaded import open_model
from medrobust.inference.predict import Prediction, predict
from medrobust.models.use import GUARD, PATIENT, USE
from tests.data.sources.samples import slice_file
from tests.inference.model_folder import SIDE, picture, write_model, write_use
from tests.small import CLASSES


def same(one: Prediction, other: Prediction) -> bool:
    facts = [
        (p.label, p.probabilities, p.rejected, p.reason, p.score, p.threshold, p.calibrated) for p in (one, other)
    ]
    return facts[0] == facts[1]


def test_every_form_of_an_image_gives_the_same_answer(model_folder: Path, tmp_path: Path) -> None:
    pixels = picture(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (expected,) = predict(tmp_path / "a.png", model_folder)
    assert expected.label in CLASSES
    assert expected.score is not None
    assert expected.threshold is not None
    assert expected.calibrated
    batch = torch.from_numpy(pixels).float().div(255)[None, None]
    module = medrobust.load(model_folder)
    forms: list[Any] = [
        str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, pixels[None], pixels[None, None], batch,
        batch.numpy(), [pixels], Image.fromarray(pixels).convert("RGB"), np.repeat(pixels[..., None], 3, 2),
        torch.from_numpy(pixels),
    ]  # fmt: skip
    for form in forms:
        for model in (model_folder, str(model_folder), module):
            (found,) = predict(form, model)
            assert same(found, expected), type(form)


def test_a_tensor_of_the_stored_size_is_used_as_it_is(model_folder: Path) -> None:
    exact = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    logits = medrobust.load(model_folder)(exact) / open_model(model_folder).guard.temperature  # type: ignore[union-attr]
    for row, answer in zip(logits.softmax(1).tolist(), predict(exact, model_folder), strict=True):
        assert list(answer.probabilities.values()) == pytest.approx(row, rel=1e-4)


def test_patients_are_answered_by_the_aggregate_of_all_their_images(model_folder: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        rows.append({"path": f"{number}.png", "patient": "ab"[number % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    images = predict(tmp_path / "t.csv", model_folder, guard=False)
    patients = predict(tmp_path / "t.csv", model_folder, guard=False, unit="patient")
    assert [(one.patient, one.images, one.unit) for one in patients] == [("a", 3, "patient"), ("b", 2, "patient")]
    for one in patients:
        own = [
            np.log(list(image.probabilities.values())) * 1.5 for image in images if image.patient == one.patient
        ]
        logits = np.mean([row - np.log(np.exp(row).sum()) for row in own], axis=0) / 2.0
        assert list(one.probabilities.values()) == pytest.approx(
            list(np.exp(logits) / np.exp(logits).sum()), rel=1e-3
        )
        assert one.calibrated


def test_a_patient_is_rejected_if_more_than_half_of_the_images_are(model_folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE)).astype(np.uint8) * 255
    for number, pixels in enumerate((picture(1), noise, 255 - noise)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "patient": "p"}).to_csv(tmp_path / "t.csv", index=False)
    images = predict(tmp_path / "t.csv", model_folder)
    assert [one.rejected for one in images[1:]] == [True, True]
    (patient,) = predict(tmp_path / "t.csv", model_folder, unit="patient")
    assert patient.rejected
    assert patient.label is None
    assert patient.reason == f"{sum(one.rejected for one in images)} of 3 images are rejected"


def test_a_series_is_a_patient_and_an_ensemble_uses_the_mean(ensemble_folder: Path, tmp_path: Path) -> None:
    for index in range(3):
        values = np.random.default_rng(index).integers(900, 1300, (16, 16))
        slice_file(tmp_path / "s" / f"{index}.dcm", values, index * 2.0, "1.2.3", PatientID="")
    images = predict(tmp_path / "s", ensemble_folder)
    (series,) = predict(tmp_path / "s", ensemble_folder, unit="patient")
    assert (series.file, series.images, series.calibrated) == (str(tmp_path / "s"), 3, False)
    assert [one.slice for one in images] == [0, 1, 2]
    assert all(one.score is None and one.calibrated for one in images)


def test_an_ensemble_folder_works_wherever_it_is(ensemble_folder: Path, tmp_path: Path) -> None:
    expected = predict(picture(0), ensemble_folder)
    shutil.copytree(ensemble_folder, tmp_path / "elsewhere")
    assert predict(picture(0), tmp_path / "elsewhere") == expected
    member = tmp_path / "elsewhere" / "members" / "a" / "card.json"
    write_json(member, {**read_json(member), "sha256": "0" * 64})
    with pytest.raises(UserError, match="a has changed since the weights were fitted"):
        predict(picture(0), tmp_path / "elsewhere")


def test_a_model_folder_works_wherever_it_is_and_as_its_patient_model(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    assert same(predict(picture(0), tmp_path / "m")[0], predict(picture(0), model_folder)[0])
    assert same(predict(picture(0), tmp_path / "m" / PATIENT)[0], predict(picture(0), model_folder)[0])
    assert medrobust.load(tmp_path / "m" / PATIENT)(torch.rand(2, 4, SIDE, SIDE)).shape == (2, 3)


def damage(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("card.json", b"{", "damaged JSON"),
        ("card.json", b"{}", "is not the file that card.json describes"),
        ("card.json", None, "is not a model folder: has no card.json"),
        ("model.safetensors", b"x" * 99, "is not the file that card.json describes"),
        ("model.safetensors", None, "no such file"),
        (USE, b"{}", r"use\.json: is damaged"),
        (USE, b"[", "damaged JSON"),
        (f"{GUARD}/detectors.safetensors", b"x", "is not the file that card.json describes"),
        (f"{GUARD}/detectors.safetensors", None, "no such file"),
        (f"{GUARD}/card.json", b"[]", "is not the file that card.json describes"),
        (f"{GUARD}/card.json", None, "no such file"),
        (f"{PATIENT}/aggregate.safetensors", b"x", "is not the file that card.json describes"),
    ],
)
def test_a_damaged_folder_is_an_error(
    name: str, content: bytes | None, message: str, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    damage(tmp_path / "m", name, content)
    with pytest.raises(UserError, match=message):
        predict(picture(0), tmp_path / "m")


def test_the_guard_of_another_model_is_refused(model_folder: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="is the guard of another model"):
        predict(picture(0), model_folder, other / GUARD)
    shutil.rmtree(other / GUARD)
    shutil.copytree(model_folder / GUARD, other / GUARD)
    with pytest.raises(UserError, match="is the guard of another model"):
        predict(picture(0), other)
    with pytest.raises(UserError, match="'kde', but the model has no guard"):
        predict(picture(0), other, guard=False, detector="kde")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 4, 5, 6), dtype=np.uint8), r"uint8 of shape \(2, 3, 4, 5, 6\)"),
        (np.zeros((2, 8, 8, 8), dtype=np.uint8), "volumes as NIfTI files"),
        (np.zeros((8, 8), dtype=np.int64), "int64 of shape"),
        (np.zeros((2, 8, 8, 8)), r"shape \(2, 8, 8, 8\)"),
        (np.full((1, 1, 8, 8), np.nan), "values from nan to nan"),
        (torch.full((1, 1, 8, 8), 9.0), "values from 9 to 9"),
        ({"a": 1}, "images: dict"),
        ("missing.png", r"missing\.png: no such file"),
        (np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8), "it is in colour"),
    ],
)
def test_what_is_no_image_is_an_error(images: Any, message: str, model_folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        predict(images, model_folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"resampling": "lanczos"}, r"has input\.resampling: 'lanczos', which medrobust [0-9.]+ does not serve"),
        ({"fit": "crop"}, r"has input\.fit: 'crop', which .*\. Install the version that published the model"),
        ({"pad": 0}, r"has input\.pad: 0, which"),
    ],
)
def test_an_input_that_this_version_does_not_serve_is_refused(
    changes: dict[str, Any], found: str, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    write_use(tmp_path / "m", input={**read_json(tmp_path / "m" / USE)["input"], **changes})
    with pytest.raises(UserError, match=found):
        predict(picture(0), tmp_path / "m")


def test_a_folder_without_resampling_and_fit_gives_the_same_answer(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "old")
    own = read_json(model_folder / USE)["input"]
    assert (own.pop("resampling"), own.pop("fit")) == ("bilinear", "squash")
    write_use(tmp_path / "old", input=own)
    wide = picture(0)[:17]
    assert predict(wide, tmp_path / "old") == predict(wide, model_folder)


def test_the_pixels_are_resized_as_the_folder_says(model_folder: Path) -> None:
    """Of an image that is not square: neither cut nor padded."""
    loaded, wide = open_model(model_folder), picture(0)[:17]
    resampling = Image.Resampling[loaded.described().input.resampling.upper()]
    wanted = np.asarray(Image.fromarray(wide).resize((SIDE, SIDE), resampling))
    assert np.array_equal(loaded.reader().fit(Image.fromarray(wide)), wanted)
    for other in set(Image.Resampling) - {resampling}:
        assert not np.array_equal(np.asarray(Image.fromarray(wide).resize((SIDE, SIDE), other)), wanted)


def test_files_need_a_published_folder(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    (tmp_path / "m" / USE).unlink()
    with pytest.raises(UserError, match=r"it has no use\.json"):
        predict(picture(0), tmp_path / "m")
    assert predict(torch.rand(1, 1, 40, 40), tmp_path / "m")[0].probabilities


def test_a_model_of_single_images_refuses_a_series(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    write_use(tmp_path / "m", slices=False)
    for index in range(2):
        slice_file(tmp_path / "s" / f"{index}.dcm", np.full((16, 16), 1000 + index), index * 2.0, "1.2.3")
    with pytest.raises(UserError, match="the model was trained on single images"):
        predict(tmp_path / "s", tmp_path / "m")


def test_the_version_is_that_of_the_package() -> None:
    assert medrobust.__version__.count(".") == 2
    with pytest.raises(AttributeError):
        medrobust.nothing  # noqa: B018
