"""An ensemble is one model: one image, log-probabilities as output, and changed members are detected."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.attacks.targets import choose_targets
from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.records import read_json
from medrobust.data.store import Subset
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.models.combination import Combination
from medrobust.models.ensemble import (
    EnsembleClassifier,
    active_members,
    load_ensemble,
    load_members,
    save_ensemble,
)
from medrobust.models.predict import log_probabilities, predictions_table
from tests.small import make_classifier

BLOCK = ModelParams(timm="resnet10t", weights="none", image_size=16)


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).eval()


def subset() -> Subset:
    rng = np.random.default_rng(0)
    ids = np.array([f"i{k}" for k in range(30)])
    pixels = rng.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    return Subset(pixels, np.arange(30), np.arange(30) % 3, ids, ids, ["a", "b", "c"])


def test_the_output_is_the_log_of_the_weighted_mean() -> None:
    members = [member(0), member(1)]
    images = torch.rand(5, 1, 16, 16)
    found = EnsembleClassifier(members, [0.3, 0.7])(images)
    expected = sum(w * m(images).softmax(1).detach().numpy() for w, m in zip([0.3, 0.7], members, strict=True))
    assert np.allclose(found.exp().detach().numpy(), expected, atol=1e-6)


def test_the_gradient_goes_through_every_member() -> None:
    members = [member(0), member(1)]
    EnsembleClassifier(members, [0.5, 0.5])(torch.rand(2, 1, 16, 16))[:, 0].sum().backward()
    for one in members:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in one.parameters())


def test_a_member_of_weight_zero_is_not_run() -> None:
    members = [member(0), member(1), member(2)]
    members[1].forward = pytest.fail
    combination = Combination(weights=[0.25, 0.0, 0.75], temperatures=[1.0, 5.0, 2.0])
    ensemble, images = EnsembleClassifier(members, combination), torch.rand(4, 1, 16, 16)
    expected = 0.25 * members[0](images).softmax(1) + 0.75 * (members[2](images) / 2).softmax(1)
    assert len(ensemble.members) == 2
    assert torch.allclose(ensemble(images).exp(), expected, atol=1e-6)


def test_an_ensemble_has_the_classes_of_its_members() -> None:
    """A suite may name a class as its target."""
    first = make_classifier()
    ensemble = EnsembleClassifier([first, make_classifier()], [0.5, 0.5]).eval()
    assert ensemble.classes == first.classes
    images, labels = torch.rand(4, 1, 12, 12), torch.tensor([0, 1, 1, 0])
    assert choose_targets(ensemble, images, labels, "c", None).tolist() == [2, 2, 2, 2]


def saved(folder: Path, combination: Combination) -> dict[str, Path]:
    """Two small models and an ensemble of them in `folder/ensemble`."""
    members = {}
    for seed, name in enumerate(("x-adv", "y-adv")):
        torch.manual_seed(seed)
        members[name] = folder / "models" / name.replace("-", "/")
        checkpoint.save(members[name], build_classifier(BLOCK, ["a", "b", "c"]), BLOCK, {})
    save_ensemble(folder / "ensemble", members, combination, {"method": "convex"})
    return members


def change(folder: Path) -> None:
    """Replace the model of a folder by another."""
    other = build_classifier(BLOCK, ["a", "b", "c"])
    torch.nn.init.ones_(other.backbone.fc.weight)  # type: ignore[union-attr,arg-type]
    checkpoint.save(folder, other, BLOCK, {})


@pytest.mark.parametrize(
    "combination",
    [
        Combination(weights=[0.4, 0.6], temperatures=[0.5, 2.0]),
        Combination(coefficients=[[0.1] * 6, [0.2] * 6, [-0.3, 0.0, 0.3] * 2], intercept=[0.0, 0.1, 0.2]),
    ],
)
def test_a_loaded_ensemble_equals_the_fitted_one(combination: Combination, tmp_path: Path) -> None:
    members = saved(tmp_path, combination)
    images = torch.rand(2, 1, 16, 16)
    fitted = EnsembleClassifier([checkpoint.load(path) for path in members.values()], combination).eval()
    ensemble = load_ensemble(tmp_path / "ensemble")
    assert torch.allclose(ensemble(images), fitted(images), atol=1e-6)
    assert ensemble(images).exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert read_json(tmp_path / "ensemble" / "card.json")["method"] == "convex"


def test_a_member_of_weight_zero_is_not_active_but_still_a_sibling(tmp_path: Path) -> None:
    saved(tmp_path, Combination(weights=[0.0, 1.0]))
    assert active_members(tmp_path / "ensemble") == ["y-adv"]
    assert len(load_ensemble(tmp_path / "ensemble").members) == 1
    assert list(load_members(tmp_path / "ensemble")) == ["x-adv", "y-adv"]


@pytest.mark.parametrize("name", ["x-adv", "y-adv"])
def test_a_changed_member_is_refused_whether_it_is_active_or_not(name: str, tmp_path: Path) -> None:
    members = saved(tmp_path, Combination(weights=[0.0, 1.0]))
    change(members[name])
    with pytest.raises(UserError, match=f"{name} has changed since the weights were fitted"):
        load_ensemble(tmp_path / "ensemble")


def test_predictions_are_log_probabilities_and_modes_are_restored() -> None:
    model, data = member(0).train(), subset()
    logprobs = log_probabilities(model, data)
    assert model.training
    assert np.allclose(np.exp(logprobs).sum(1), 1)
    table = predictions_table(data, "val", logprobs)
    assert list(table["pred"]) == logprobs.argmax(1).tolist()
    assert {"id", "split", "patient", "label", "logprob_0", "logprob_2"} <= set(table.columns)
