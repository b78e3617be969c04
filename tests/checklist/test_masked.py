"""Gradients that are exact and useless are seen, at small samples, and those of sound models are not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.masking import masks
from benchmarks.masking.hiding_networks import KWinners
from medrobust.attacks.projection import Norm
from medrobust.checklist.base import ImageSample, Paths
from medrobust.checklist.paths import follow_gradients
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from tests.checklist.conftest import EPS, Check, l2_suite_of, suite_of, train

#: The attacks of the default suite, and its number of images and queries.
DEFAULT = [{"name": "pgd", "steps": 10}, {"name": "pgd", "steps": 10, "loss": "margin"}]
IMAGES, QUERIES = 12, 50


class Partial(masks.Mask):
    """A fine ripple on the logits of bright images only."""

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)).detach() > 0.435
        return torch.where(bright[:, None], logits + 0.1 * (400 * logits).sin(), logits)


class Votes(masks.Mask):
    """One vote for the predicted class: no graph leads from the votes to the image."""

    def outputs(self, logits: Tensor, images: Tensor) -> Tensor:
        return nn.functional.one_hot(logits.argmax(1), 3).to(images)


class WithGradients(masks.Mask):
    """Another function where a graph is recorded: an attack sees other logits than the evaluation."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(3) if images.requires_grad else images)


#: mask -> how it wraps a sound model, and checks of which at least one must fail.
MASKS: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "ripple": (lambda model: masks.Ripple(model, 0.1, 400), {"gain", "direction"}),
    "triangle": (lambda model: masks.Ripple(model, 0.2, 60, masks.triangle), {"gain"}),
    "fine shatter": (lambda model: masks.Shatter(model, 0.02, 0.008), {"gain"}),
    "coarse shatter": (lambda model: masks.Shatter(model, 0.02, 0.06), {"direction"}),
    "wide shatter": (lambda model: masks.Shatter(model, 0.03, 0.15), {"direction", "smoothed gradient"}),
    "rows without a gradient": (lambda model: masks.Detached(model, "rows"), {"random step"}),
    "wrong sign": (masks.Reversed, {"gain"}),
    "some images": (Partial, {"gain"}),
    "no graph": (Votes, {"zero gradient"}),
    "other logits with gradients": (WithGradients, {"deterministic"}),
}


def lines_of(record: dict[str, Any]) -> dict[str, str]:
    return record["model"] | record["suites"]["s"]["checks"]


@pytest.mark.parametrize("mask", MASKS)
def test_a_masked_model_is_caught_with_the_default_sample(mask: str, sound: nn.Module, check: Check) -> None:
    wrap, names = MASKS[mask]
    record = check(wrap(sound).eval(), {"s": suite_of(DEFAULT)}, count=IMAGES, queries=QUERIES)
    lines = lines_of(record)
    assert any(lines[name].startswith(("fail", "warn")) for name in names), {name: lines[name] for name in names}
    assert record["suites"]["s"]["verdict"] != "no problem found"


def test_winners_are_caught_and_queries_of_predictions_alone_fool_them(images: Subset, check: Check) -> None:
    """K-winners-take-all: its gradients do not see that winners change (Xiao et al. 2020)."""
    model = train(images, lambda model, batch, labels, step: batch, winners)
    record = check(model, {"s": suite_of(DEFAULT)}, count=24, queries=200)
    lines = lines_of(record)
    assert lines["finite difference"].startswith("pass")
    assert lines["gain"].startswith("fail")
    assert lines["label only"].startswith(("warn", "fail"))
    assert lines["together"].startswith(("warn", "fail"))


def winners() -> nn.Module:
    """A network that keeps a tenth of its activations."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), KWinners(0.1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(288, 64),
        KWinners(0.1), nn.Linear(64, 3),
    )  # fmt: skip


def test_a_suite_that_is_weaker_than_another_is_not_without_problems(sound: nn.Module, check: Check) -> None:
    """Compared image by image at the same radius; the stronger one passes, and an L2 suite has no other."""
    suites = {
        "weak": suite_of([{"name": "fgsm"}]),
        "strong": suite_of(),
        "other": l2_suite_of({"name": "pgd_l2"}),
    }
    record = check(sound, suites, count=4)
    lines = {name: suite["checks"]["other suites"] for name, suite in record["suites"].items()}
    assert lines["weak"].startswith("warn: other suites fool ")
    assert lines["strong"].startswith("pass: other suites fool 0 of ")
    assert lines["other"] == "skip: no other suite of this norm"
    assert record["suites"]["weak"]["verdict"] != "no problem found"


def paths_of(model: nn.Module, images: Subset, norm: Norm = "Linf", count: int = 36) -> Paths:
    rows = np.arange(0, 450, 450 // count)[:count]
    sample = ImageSample(rows, images.batch(rows), images.targets(rows), image_seeds(images.ids[rows], 0))
    return follow_gradients(model, sample, EPS if norm == "Linf" else 0.5, norm)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_gradients_of_sound_models_add_up(
    norm: Norm, sound: nn.Module, noisy: nn.Module, images: Subset
) -> None:
    for model in (sound, noisy):
        paths = paths_of(model, images, norm)
        assert (np.abs(paths.gains - 1) < 0.1).mean() > 0.95
        assert (paths.cosines > 0.5).mean() > 0.95
        assert (paths.errors < 0.5).mean() > 0.9


class Quadratic(nn.Module):
    """Three classes; the margin is the sum of squares of the pixels times a factor, less a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        value = self.factor * images.square().flatten(1).sum(1) - 100
        return torch.stack([torch.zeros_like(value), value, value - 1], 1)


def test_the_trapezoidal_rule_is_exact_for_a_quadratic_margin(images: Subset) -> None:
    rows = np.arange(0, 150, 10)  # of the first class, whose margin it is
    sample = ImageSample(rows, images.batch(rows), images.targets(rows), image_seeds(images.ids[rows], 0))
    paths = follow_gradients(Quadratic(3.0), sample, EPS, "Linf")
    assert paths.gains == pytest.approx(np.ones((15, 2)), abs=1e-4)
    assert paths.errors == pytest.approx(np.zeros(15), abs=1e-3)
    assert (paths.cosines > 0.99).all()


def test_images_without_a_gradient_have_useless_paths(images: Subset) -> None:
    paths = paths_of(Quadratic(0.0), images, count=4)
    assert np.isnan(paths.gains).all()
    assert np.isnan(paths.errors).all()
    assert (paths.cosines == 0).all()
