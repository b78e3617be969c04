"""An image before and after an attack."""

from pathlib import Path

import numpy as np
import pytest

from medrobust.app.attack_choices import attack_choices
from medrobust.app.compare import compare
from medrobust.data.inputs import InputImage
from medrobust.inference.loaded import LoadedModel, open_model
from medrobust.inference.predict import predict
from tests.app.published import CLASSES, SIZE, pixels
from tests.inference.model_folder import SIDE, write_ensemble

CHOICE = attack_choices()["pgd (Linf)"]


def test_at_radius_0_there_is_the_answer_of_predict_and_no_attack(model: LoadedModel) -> None:
    shown = compare(model, InputImage(pixels(), "a.png"), CHOICE, 0.0)
    assert shown.attacked is None
    assert not shown.fooled
    (expected,) = predict(pixels()[None], model.network)
    clean = shown.clean.prediction
    assert (clean.label, clean.probabilities) == (expected.label, expected.probabilities)
    assert (clean.score, clean.threshold) == (expected.score, expected.threshold)
    assert shown.clean.top == CLASSES[0]
    np.testing.assert_allclose(shown.clean.pixels, pixels() / 255, atol=1e-6)


def test_an_attack_changes_the_answer_and_the_guard_rejects_it(model: LoadedModel) -> None:
    shown = compare(model, InputImage(pixels(), "a.png"), CHOICE, 0.01)
    assert shown.attacked is not None
    assert shown.fooled
    assert (shown.clean.top, shown.attacked.top) == tuple(CLASSES)
    assert not shown.clean.prediction.rejected
    assert shown.attacked.prediction.rejected
    assert shown.attacked.prediction.label is None
    change = np.abs(shown.attacked.pixels - shown.clean.pixels)
    assert 0.009 < change.max() <= 0.01 + 1e-6
    for version in (shown.clean, shown.attacked):
        assert version.kind == "gradcam"
        assert version.heat.shape == (SIZE, SIZE)
        assert version.heat.max() == pytest.approx(1)


def test_the_same_request_has_the_same_answer(model: LoadedModel) -> None:
    first, second = (compare(model, InputImage(pixels(1), "a.png"), CHOICE, 0.02) for _ in range(2))
    assert first.attacked is not None
    assert second.attacked is not None
    np.testing.assert_array_equal(first.attacked.pixels, second.attacked.pixels)
    assert first.attacked.prediction == second.attacked.prediction


def test_an_ensemble_has_no_feature_maps_and_shows_the_gradient(tmp_path: Path) -> None:
    ensemble = open_model(write_ensemble(tmp_path))
    shown = compare(ensemble, InputImage(pixels(size=SIDE), "a.png"), CHOICE, 0.05)
    assert shown.attacked is not None
    assert {shown.clean.kind, shown.attacked.kind} == {"saliency"}
    assert shown.clean.heat.shape == (SIDE, SIDE)
    assert shown.clean.prediction.score is None
