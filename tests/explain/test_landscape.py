"""Features in two dimensions and the loss around an image, against plain linear algebra and known models."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medrobust.explain.landscape import feature_map, loss_surface, penultimate
from medrobust.models.classifier import Classifier


def test_components_are_those_of_the_covariance_and_project_others() -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(30, 6)) @ np.diag([5, 3, 1, 1, 1, 1]) @ rng.normal(size=(6, 6))
    found = feature_map(clean, clean[:7], seed=1)
    np.testing.assert_allclose(found.attacked, found.clean[:7], atol=1e-6)
    scaled = (clean - clean.mean(0)) / clean.std(0)
    values, vectors = np.linalg.eigh(np.cov(scaled.T))
    assert found.explained == pytest.approx(values[-2:].sum() / values.sum())
    np.testing.assert_allclose(np.abs(found.clean), np.abs(scaled @ vectors[:, [-1, -2]]), atol=1e-6)


def test_neighbours_stay_neighbours_and_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(3) * 30, 12, axis=0) + rng.normal(size=(36, 3))
    found = feature_map(groups, groups[:1], seed=1)
    assert found.tsne is not None
    assert found.tsne.shape == (36, 2)
    labels = np.repeat([0, 1, 2], 12)
    away = np.linalg.norm(found.tsne[:, None] - found.tsne[None], axis=2) + np.eye(36) * 1e9
    assert (labels[away.argmin(1)] == labels).mean() > 0.95
    again = feature_map(groups, groups[:1], seed=1).tsne
    assert again is not None
    assert np.array_equal(found.tsne, again)


def test_attacked_images_can_be_in_the_layout() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(3) * 30, 12, axis=0) + rng.normal(size=(36, 3))
    moved = groups[:5] + np.eye(3)[1] * 30 - np.eye(3)[0] * 30  # from the first group into the second
    found = feature_map(groups, moved, seed=1, joint=True)
    assert found.tsne is not None
    assert found.tsne.shape == (41, 2)
    away = np.linalg.norm(found.tsne[36:, None] - found.tsne[None, :36], axis=2)
    assert (np.repeat([0, 1, 2], 12)[away.argmin(1)] == 1).all()
    alone = feature_map(groups, moved, seed=1)
    np.testing.assert_array_equal(found.clean, alone.clean)


def test_constant_features_and_few_images_are_no_error() -> None:
    clean = np.array([[0.0, 1, 5], [1, 0, 5], [2, 4, 5]])
    found = feature_map(clean, clean, seed=0)
    assert np.isfinite(found.clean).all()
    assert found.tsne is None


def test_features_are_the_penultimate_ones(model: Classifier) -> None:
    images = torch.rand(5, 1, 12, 12)
    found = penultimate(model, iter(images.split(2)))
    assert found is not None
    with torch.no_grad():
        np.testing.assert_allclose(found, model.features(images).numpy(), rtol=1e-5, atol=1e-6)
    assert penultimate(nn.Flatten(), iter([images])) is None


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_surface_is_the_loss_at_its_offsets(model: Classifier, norm: str) -> None:
    image, label = torch.full((1, 1, 12, 12), 0.5), torch.tensor([1])
    eps = 0.05 if norm == "Linf" else 0.5
    found = loss_surface(model, image, label, torch.tensor([7]), eps, norm, 5)  # type: ignore[arg-type]
    offsets, losses = found.offsets, found.losses
    assert losses.shape == (5, 5)
    np.testing.assert_allclose(offsets, np.linspace(-2 * eps, 2 * eps, 5), rtol=1e-5)
    pixels = image.clone().requires_grad_(True)
    loss = F.cross_entropy(model(pixels), label)
    (gradient,) = torch.autograd.grad(loss, pixels)
    step = gradient.sign() if norm == "Linf" else gradient / gradient.norm()
    assert losses[2, 2] == pytest.approx(loss.item(), rel=1e-5)
    with torch.no_grad():
        along = [F.cross_entropy(model((image + o * step).clamp(0, 1)), label).item() for o in offsets.tolist()]
    np.testing.assert_allclose(losses[2], along, rtol=1e-4)
    assert losses[2, 3] > losses[2, 2] > losses[2, 1], "the loss rises along its gradient"
    assert all(p.requires_grad for p in model.parameters())


def test_the_outline_is_where_the_plane_leaves_the_ball(model: Classifier) -> None:
    """In Linf a diamond, in L2 the ellipse a² + b² + 2·a·b·cos = eps² of directions at that angle."""
    image, label = torch.full((1, 1, 12, 12), 0.5), torch.tensor([1])
    diamond = loss_surface(model, image, label, torch.tensor([7]), 0.05, "Linf", 2).outline
    np.testing.assert_allclose(np.abs(diamond).sum(1), 0.05, rtol=1e-6)
    assert np.abs(diamond).max(0) == pytest.approx([0.05, 0.05]), "the corners are drawn"
    ellipse = loss_surface(model, image, label, torch.tensor([7]), 0.5, "L2", 2).outline
    a, b = ellipse.T
    cosine = (0.25 - a**2 - b**2)[[15, 45]] / (2 * a * b)[[15, 45]]
    assert cosine[0] == pytest.approx(cosine[1], abs=1e-5)
    assert 0 < abs(cosine[0]) < 0.5
    np.testing.assert_allclose(a**2 + b**2 + 2 * a * b * cosine[0], 0.25, rtol=1e-5)
    for outline in (diamond, ellipse):
        np.testing.assert_allclose(outline[0], outline[-1], atol=1e-9)


def test_an_outline_of_a_flat_loss_is_finite() -> None:
    image = torch.full((1, 1, 4, 4), 0.5)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(flat.get_parameter("1.weight"))
    outline = loss_surface(flat, image, torch.tensor([0]), torch.tensor([1]), 0.1, "Linf", 2).outline
    assert np.isfinite(outline).all()
    assert outline[30] == pytest.approx([0, 0.1])
