"""What the page reads: answers, pictures and verdicts, and nothing that names a patient or a file."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medrobust.cases.choice import choose_images, worst_wrong
from medrobust.cases.pictures import change_levels
from medrobust.detection.guard import score_images
from medrobust.models.predict import log_probabilities
from tests.cases.small_run import COUNT, PGD, SEED, cases, collect, shown_models, splits, trained
from tests.cases.small_run import shown as shown_images


def pixels(uri: str) -> np.ndarray:
    file = io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def answers(name: str = "one-adv") -> list[dict[str, Any]]:
    return [case["models"][name] for case in cases()["cases"]]


def test_images_are_chosen_by_rule_and_named_by_row_and_number_of_the_patient() -> None:
    some, found, test = shown_images(), cases()["cases"], splits().test
    logprobs = [log_probabilities(each.model, test) for each in shown_models()]
    worst = [worst_wrong(test.labels, each.argmax(1), each.max(1), ordered=False) for each in logprobs]
    chosen, errors = choose_images(worst, len(test), COUNT)
    assert [case["image"] for case in found] == test.rows[chosen].tolist() == some.rows.tolist()
    assert cases()["errors"] == errors > 0
    assert [case["patient"] for case in found] == (pd.factorize(test.patients)[0][chosen] + 1).tolist()
    assert [case["label"] for case in found] == some.labels.tolist()
    for case, row in zip(found, some.rows, strict=True):
        assert (pixels(case["picture"]) == splits().test.store_images[row]).all()


def test_no_id_of_an_image_or_a_patient_is_in_it() -> None:
    text = json.dumps(cases())
    assert not [name for name in (*splits().test.ids, *splits().test.patients) if f'"{name}"' in text]


def test_an_image_without_a_known_patient_has_no_number() -> None:
    test = splits().test
    nobody = replace(test, patients=np.array([f"?{name}" for name in test.ids]))
    assert {case["patient"] for case in collect(nobody)["cases"]} == {None}


def test_answers_are_those_of_the_model() -> None:
    some = shown_images()
    with torch.no_grad():
        logits = trained()(some.batch(range(len(some))))
    shown = answers()
    assert np.allclose([each["probabilities"] for each in shown], logits.softmax(1).numpy(), atol=1e-4)
    right = [each["margin"] < 0 for each in shown]
    assert right == (logits.argmax(1).numpy() == some.labels).tolist()


def test_scores_are_those_of_the_first_detector() -> None:
    shown, some = shown_models()[0], shown_images()
    assert shown.guard
    expected = score_images(shown.model, shown.guard, some, SEED)["gmm"].scores
    assert [each["score"] for each in answers()] == pytest.approx(expected, rel=1e-3)
    facts = cases()["models"]
    assert facts[0]["detector"] == {
        "name": "gmm", "threshold": shown.guard.detectors["gmm"].threshold, "fpr": shown.guard.fpr,
    }  # fmt: skip
    assert facts[1]["detector"] is None
    assert {each["score"] for each in answers("ensemble")} == {None}


def test_a_picture_has_one_tile_per_version_and_maps_one_more() -> None:
    for each in answers():
        versions = [version for part in each["suites"].values() for version in part["versions"]]
        assert (pixels(each["changes"]).shape if versions else each["changes"]) == (
            (12 * len(versions), 12) if versions else None
        )
        assert pixels(each["maps"]).shape == (12 * (len(versions) + 1), 12)
    assert {each["maps"] for each in answers("ensemble")} == {None}
    assert [model["layer"] for model in cases()["models"]] == ["deep", None]


def test_a_tile_is_the_change_of_its_version() -> None:
    """The attacked image from the picture has the answer that stands beside it."""
    some, checked = shown_images(), 0
    for row, each in enumerate(answers()):
        tile = 0
        for name, part in each["suites"].items():
            for version in part["versions"]:
                levels = pixels(each["changes"])[12 * tile : 12 * tile + 12]
                change = torch.from_numpy((levels - 128) / 127 * version["largest"]).float()
                with torch.no_grad():
                    found = trained()((some.batch([row]) + change).clamp(0, 1)).softmax(1)[0]
                assert found.tolist() == pytest.approx(version["probabilities"], abs=5e-3)
                if name == PGD["name"]:
                    assert float(change.abs().max()) <= version["eps"] * 1.001
                tile, checked = tile + 1, checked + 1
    assert checked > 10


def test_changes_below_a_grey_level_are_kept_and_no_change_is_the_middle() -> None:
    change = np.full((1, 2, 2), 0.002)
    change[0, 0, 0] = -0.001
    assert change_levels(change, 0.002).tolist() == [[64, 255], [255, 255]]
    assert change_levels(np.zeros((1, 1, 1)), 0.0).tolist() == [[128]]
    assert change_levels(np.zeros((3, 2, 2)), 0.1).shape == (2, 2, 3)


def test_colour_images_have_colour_pictures() -> None:
    test = splits().test
    some = collect(replace(test, store_images=np.repeat(test.store_images[..., None], 3, axis=3)))["cases"][0]
    assert pixels(some["picture"]).shape == (12, 12, 3)
    assert pixels(some["models"]["one-adv"]["maps"]).ndim == 2
