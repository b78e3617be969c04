"""The vote is the log of the weighted mean probability, and its weights are the best convex ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medrobust.data.store import Subset
from medrobust.ensemble import (
    EnsembleClassifier,
    convex_weights,
    fit_ensemble,
    load_ensemble,
    save_ensemble,
)
from medrobust.errors import UserError
from medrobust.evaluation import predict, predictions_table
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.params.training import AdvParams, ModelParams

BLOCK = ModelParams(timm="resnet10t", weights="none", image_size=16)


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).eval()


def subset() -> Subset:
    rng = np.random.default_rng(0)
    ids = np.array([f"i{k}" for k in range(30)])
    pixels = rng.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    return Subset(pixels, np.arange(30), np.arange(30) % 3, ids, ids, ["a", "b", "c"])


def test_the_vote_is_the_log_of_the_weighted_mean() -> None:
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


def test_convex_weights_agree_with_a_grid_search() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(0, 1, (2, 2, 200, 3))
    logits[:, 0] += 1.2 * np.eye(3)[labels]
    logits[:, 1] += 0.8 * np.eye(3)[labels]
    clean, robust = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = np.arange(200)

    def loss(weight: float) -> float:
        mix = np.array([weight, 1 - weight])
        return float(sum(-np.log(mix @ np.exp(part[:, rows, labels])).mean() / 2 for part in (clean, robust)))

    grid = np.linspace(0, 1, 2001)
    best = grid[np.argmin([loss(weight) for weight in grid])]
    found = convex_weights(clean, robust, labels, 0.5)
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(best, abs=2e-3)


def test_a_useless_member_gets_no_weight() -> None:
    labels = np.arange(60) % 3
    sharp = np.log(np.where(np.eye(3)[labels] > 0, 0.98, 0.01))
    flat = np.full((60, 3), -np.log(3))
    weights = convex_weights(np.stack([sharp, flat]), np.stack([sharp, flat]), labels, 0.5)
    assert weights[1] < 0.01


def test_fitting_uses_validation_and_one_image_for_all() -> None:
    adv = AdvParams(eps=0.01, alpha="auto", steps=2, mix=0.5, epochs=1, lr_scale=1.0)
    ensemble, weights = fit_ensemble({"x": member(0), "y": member(1)}, subset(), adv, 0.5, seed=0)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert ensemble.weights.tolist() == pytest.approx(list(weights.values()), abs=1e-3)


def test_a_changed_member_is_refused(tmp_path: Path) -> None:
    members = {}
    for seed, name in enumerate(("x", "y")):
        torch.manual_seed(seed)
        members[name] = tmp_path / "models" / name / "adv"
        checkpoint.save(members[name], build_classifier(BLOCK, ["a", "b", "c"]), BLOCK, {})
    folder = tmp_path / "models" / "ensemble"
    save_ensemble(folder, {"x": 0.4, "y": 0.6}, members)
    ensemble = load_ensemble(folder)
    assert ensemble(torch.rand(2, 1, 16, 16)).exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    torch.manual_seed(9)
    changed = build_classifier(BLOCK, ["a", "b", "c"])
    torch.nn.init.ones_(changed.backbone.fc.weight)  # type: ignore[union-attr,arg-type]
    checkpoint.save(members["y"], changed, BLOCK, {})
    with pytest.raises(UserError, match="y has changed since the weights were fitted"):
        load_ensemble(folder)


def test_predictions_are_log_probabilities_and_modes_come_back() -> None:
    model, data = member(0).train(), subset()
    logprobs = predict(model, data)
    assert model.training
    assert np.allclose(np.exp(logprobs).sum(1), 1)
    table = predictions_table(data, "val", logprobs)
    assert list(table["pred"]) == logprobs.argmax(1).tolist()
    assert {"id", "split", "patient", "label", "logprob_0", "logprob_2"} <= set(table.columns)
