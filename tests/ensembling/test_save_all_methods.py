"""What stands on disk of each method is what was fitted; of one that was impossible, why."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_json
from medrobust.ensembling.compare import Comparison
from medrobust.ensembling.save_all_methods import save_all_methods
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.ensemble import EnsembleClassifier, load_ensemble, load_members, voters
from medrobust.models.folder import not_fitted
from medrobust.models.vote import Rule
from tests.ensembling.samples import draw, settings

RULES = {
    "equal": Rule(weights=[0.5, 0.5]),
    "convex": Rule(weights=[0.0, 1.0], temperatures=[1.0, 2.0]),
    "stacking": Rule(coefficients=[[0.1] * 6, [0.2] * 6, [-0.3, 0.0, 0.3] * 2], intercept=[0.0, 0.1, 0.2]),
}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two small models, and the folder of four ways to make them vote, of which one was impossible."""
    block = ModelParams(timm="resnet10t", weights="none", image_size=16)
    members = {}
    for seed, name in enumerate(("x-adv", "y-adv")):
        torch.manual_seed(seed)
        members[name] = tmp_path / "models" / name.replace("-", "/")
        checkpoint.save(members[name], build_classifier(block, ["a", "b", "c"]), block, {})
    records: dict[str, dict[str, Any]] = {name: {"test_accuracy": 0.5} for name in RULES}
    records["blending"] = {"not_fitted": "too few have c"}
    folder = tmp_path / "data" / "methods"
    save_all_methods(folder, members, Comparison(records, RULES), draw([1.0, 1.0]), settings())
    return folder


@pytest.mark.parametrize("name", RULES)
def test_each_method_is_loaded_as_it_was_fitted(name: str, kept: Path) -> None:
    images = torch.rand(2, 1, 16, 16)
    fitted = EnsembleClassifier(list(load_members(kept / name).values()), RULES[name]).eval()
    assert torch.allclose(load_ensemble(kept / name)(images), fitted(images), atol=1e-6)
    card = read_json(kept / name / "card.json")
    assert card["method"] == name
    assert card["fitted_on"].startswith(f"{name} vote of ")
    assert not_fitted(kept / name) is None


def test_who_votes_differs_between_methods(kept: Path) -> None:
    assert [voters(kept / name) for name in RULES] == [["x-adv", "y-adv"], ["y-adv"], ["x-adv", "y-adv"]]


def test_an_impossible_method_says_why_and_is_no_model(kept: Path) -> None:
    assert not_fitted(kept / "blending") == "too few have c"
    with pytest.raises(
        UserError, match=r"blending: this ensemble method could not be fitted: too few have c\. Set"
    ):
        load_ensemble(kept / "blending")
