"""Every backbone of the default parameters, ensembles and patient models can be exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.core.errors import UserError
from medrobust.core.params.schema import check_params
from medrobust.export.onnx_file import OnnxModel, write_onnx
from medrobust.export.run import ExportData, export_onnx
from medrobust.models.aggregates import build_aggregate
from medrobust.models.build import build_classifier
from medrobust.models.checkpoint import load
from medrobust.models.classifier import Classifier
from medrobust.models.combination import Combination
from medrobust.models.ensemble import EnsembleClassifier, save_ensemble
from medrobust.models.patient import PatientModel, save_patient_model
from tests.export.conftest import write_model
from tests.params import preset
from tests.small import make_classifier
from tests.stages import CLASSES


def difference(model: nn.Module, path: Path, *shapes: tuple[int, ...]) -> float:
    """The largest difference of a probability on random images of several shapes."""
    generator, found = torch.Generator().manual_seed(1), 0.0
    write_onnx(model.eval(), torch.rand(2, *shapes[0][1:], generator=generator), path, {})
    exported = OnnxModel(path)
    for shape in shapes:
        images = torch.rand(shape, generator=generator)
        with torch.no_grad():
            expected = model(images).softmax(1).numpy()
        found = max(found, float(np.abs(exported.probabilities(images) - expected).max()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "resnet34", "efficientnet_b0"])
def test_a_default_backbone_answers_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_classifier(check_params(preset(), "default").models[name], ["a", "b", "c"])
    for parameter in model.backbone.get_classifier().parameters():  # type: ignore[operator]
        nn.init.normal_(parameter, std=0.3)
    assert difference(model, tmp_path / "m.onnx", (4, 1, 64, 64), (1, 1, 64, 64), (3, 1, 40, 80)) < 1e-4


def other_classifier() -> Classifier:
    """The small classifier with other weights."""
    model = make_classifier()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("rule", ["weights", "linear"])
def test_an_ensemble_answers_the_same(rule: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = Combination(weights=[0.3, 0.7], temperatures=[0.5, 2.0])
    linear = Combination(coefficients=torch.randn(3, 6).tolist(), intercept=[0.1, 0.0, -0.1])
    model = EnsembleClassifier([make_classifier(), other_classifier()], weights if rule == "weights" else linear)
    assert difference(model, tmp_path / "m.onnx", (4, 1, 20, 20), (1, 1, 12, 12)) < 1e-4


@pytest.mark.parametrize("kind", ["mean", "max", "attention"])
def test_a_patient_model_takes_any_number_of_images_of_each_patient(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PatientModel(other_classifier(), build_aggregate(kind, 40, 8, 3), channels=1)
    assert (
        difference(model, tmp_path / "m.onnx", (3, 4, 20, 20), (1, 4, 20, 20), (2, 7, 12, 12), (5, 1, 20, 20))
        < 1e-4
    )


def test_a_recurrent_aggregate_is_refused_with_the_others_named(tmp_path: Path) -> None:
    model = PatientModel(make_classifier(), build_aggregate("gru", 40, 8, 3), channels=1)
    with pytest.raises(UserError, match=r"gru[\s\S]*mean, max or attention"):
        write_onnx(model.eval(), torch.rand(2, 4, 12, 12), tmp_path / "m.onnx", {})


@pytest.mark.slow
def test_folders_of_an_ensemble_and_of_a_patient_model_are_exported(
    place: Path, data: ExportData, tmp_path: Path
) -> None:
    members = {name: write_model(tmp_path / name, CLASSES, seed) for seed, name in enumerate(("one", "two"))}
    save_ensemble(tmp_path / "both", members, Combination(weights=[0.4, 0.6]), {"regime": "clean"})
    found = export_onnx(tmp_path / "both", tmp_path / "a", data)
    assert [each.n for each in found] == [6, 6, 6]

    patient = PatientModel(load(members["one"]), build_aggregate("mean", 0, 8, 2), channels=1)
    save_patient_model(tmp_path / "patient", members["one"], patient, {"aggregate": "mean", "hidden": 8})
    found = export_onnx(tmp_path / "patient", tmp_path / "b", data)
    assert [each.n for each in found] == [4, 4, 4], "four test patients"
    assert "one row per patient" in (tmp_path / "b" / "README.md").read_text()
