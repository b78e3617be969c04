"""What the page shows for an upload."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from medrobust.app.answers import EMPTY, answer_page
from medrobust.app.uploads import ReadFiles, Upload, read_upload
from medrobust.data.inputs import Fault, InputImage
from medrobust.inference.loaded import LoadedModel
from tests.app.published import pixels

IMAGES = [InputImage(pixels(seed), f"{seed}.png") for seed in range(3)]


def page(model: LoadedModel, upload: Upload | None, *, number: int = 1, eps: float = 0.0) -> str:
    return answer_page({"m": model}, upload, number, "m", "pgd (Linf)", eps)


def upload_of(*faults: Fault, images: list[InputImage] = IMAGES) -> Upload:
    return Upload({"m": ReadFiles(images, list(faults))})


def test_without_a_file_it_asks_for_one(model: LoadedModel) -> None:
    assert EMPTY in page(model, None)


def test_the_answer_names_file_class_probabilities_guard_and_pictures(model: LoadedModel) -> None:
    html = page(model, upload_of(), number=2)
    assert "1.png" in html
    assert '<p class="headline" role="status">healthy</p>' in html
    assert "<strong>Accepted</strong> by the guard (score 0.8208, threshold" in re.sub(r"\s+", " ", html)
    assert "&lt;b&gt;ill&lt;/b&gt;" in html
    assert "<b>ill</b>" not in html
    assert re.findall('alt="([^"]*)"', html) == ["image, Without an attack", "Grad-CAM, Without an attack"]
    assert set(re.findall('src="([^"]{22})', html)) == {"data:image/png;base64,"}


def test_an_attack_is_shown_beside_it(model: LoadedModel) -> None:
    html = page(model, upload_of(), eps=0.01)
    assert "The attack changes the answer from healthy to &lt;b&gt;ill&lt;/b&gt;, and the guard rejects it" in html
    assert "Attacked: pgd (Linf), ε = 0.01 (2.55 of 255 grey levels)" in html
    assert "squeeze: score" in html
    assert "change × 100" in html


def test_an_attack_without_effect_and_a_guard_that_notices_nothing_are_said(model: LoadedModel) -> None:
    assert "The attack does not change the answer: healthy" in page(model, upload_of(), eps=0.0001)
    fitted = replace(model.guard.detectors["squeeze"], threshold=9.0)  # type: ignore[union-attr]
    blind = replace(model, guard=replace(model.guard, detectors={"squeeze": fitted}))  # type: ignore[type-var]
    assert "and the guard accepts it" in page(blind, upload_of(), eps=0.01)
    html = page(replace(model, guard=None, detector=""), upload_of(), eps=0.01)
    assert "from healthy to &lt;b&gt;ill&lt;/b&gt;</p>" in html
    assert "Not checked: this model has no guard." in html


def test_a_rejected_image_is_said_in_the_first_line(model: LoadedModel) -> None:
    fitted = replace(model.guard.detectors["squeeze"], threshold=0.0)  # type: ignore[union-attr]
    strict = replace(model, guard=replace(model.guard, detectors={"squeeze": fitted}))  # type: ignore[type-var]
    html = page(strict, upload_of())
    assert "healthy, but rejected by the guard" in html
    assert "A human must look at this image." in html


def test_a_patient_with_several_images_has_an_answer(model: LoadedModel) -> None:
    series = [replace(image, slice=number, volume="head.nii") for number, image in enumerate(IMAGES)]
    html = page(model, upload_of(images=series), number=3)
    assert "2.png, slice 2" in html
    assert re.search(r"head.nii, from 3 images: healthy \(\d\d%\)\.", html)


def test_files_without_an_answer_are_named(model: LoadedModel) -> None:
    fault = Fault("notes.txt", "is <no> image")
    html = page(model, upload_of(fault))
    assert "notes.txt: is &lt;no&gt; image" in html
    assert 'class="headline"' in html
    alone = page(model, upload_of(fault, images=[]))
    assert "notes.txt: is &lt;no&gt; image" in alone
    assert 'class="headline"' not in alone


def test_an_image_that_the_model_refuses_is_a_message(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(model, guard=replace(model.guard, detectors={"squeeze": model.fitted}), detector="squeeze")  # type: ignore[type-var]
    monkeypatch.setitem(broken.fitted.detector.state, "widths", model.fitted.detector.state["widths"] + 1)  # type: ignore[union-attr]
    html = page(broken, upload_of())
    assert "was fitted to features of other widths" in html


def test_a_colour_picture_for_a_grey_model_is_a_message(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "uploads" / "0" / "photo.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    html = page(model, read_upload([path], {"m": model}))
    assert "photo.png: " in html
    assert 'class="headline"' not in html
