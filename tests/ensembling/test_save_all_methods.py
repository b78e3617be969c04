"""The saved ensemble of each method equals the fitted one; if there is none, the reason is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_json
from medrobust.ensembling.compare import MethodComparison
from medrobust.ensembling.save_all_methods import save_all_methods
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.card import not_fitted
from medrobust.models.combination import Combination
from medrobust.models.ensemble import EnsembleClassifier, active_members, load_ensemble, load_members
from tests.ensembling.drawn_predictions import draw, settings

COMBINATIONS = {
    "equal": Combination(weights=[0.5, 0.5]),
    "convex": Combination(weights=[0.0, 1.0], temperatures=[1.0, 2.0]),
    "stacking": Combination(coefficients=[[0.1] * 6, [0.2] * 6, [-0.3, 0.0, 0.3] * 2], intercept=[0.0, 0.1, 0.2]),
}


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    """Two small models, and the folder of four methods, one of which was not fitted."""
    block = ModelParams(timm="resnet10t", weights="none", image_size=16)
    members = {}
    for seed, name in enumerate(("x-adv", "y-adv")):
        torch.manual_seed(seed)
        members[name] = tmp_path / "models" / name.replace("-", "/")
        checkpoint.save(members[name], build_classifier(block, ["a", "b", "c"]), block, {})
    records: dict[str, dict[str, Any]] = {name: {"test_accuracy": 0.5} for name in COMBINATIONS}
    records["blending"] = {"not_fitted": "too few have c"}
    folder = tmp_path / "data" / "methods"
    save_all_methods(folder, members, MethodComparison(records, COMBINATIONS), draw([1.0, 1.0]), settings())
    return folder


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_loaded_ensemble_of_each_method_equals_the_fitted_one(name: str, methods: Path) -> None:
    images = torch.rand(2, 1, 16, 16)
    fitted = EnsembleClassifier(list(load_members(methods / name).values()), COMBINATIONS[name]).eval()
    assert torch.allclose(load_ensemble(methods / name)(images), fitted(images), atol=1e-6)
    card = read_json(methods / name / "card.json")
    assert card["method"] == name
    assert card["fitted_on"].startswith(f"{name} ensemble of ")
    assert not_fitted(methods / name) is None


def test_methods_differ_in_their_active_members(methods: Path) -> None:
    assert [active_members(methods / name) for name in COMBINATIONS] == [
        ["x-adv", "y-adv"],
        ["y-adv"],
        ["x-adv", "y-adv"],
    ]


def test_a_method_that_was_not_fitted_has_a_reason_and_is_no_model(methods: Path) -> None:
    assert not_fitted(methods / "blending") == "too few have c"
    with pytest.raises(
        UserError, match=r"blending: this ensemble method could not be fitted: too few have c\. Set"
    ):
        load_ensemble(methods / "blending")
