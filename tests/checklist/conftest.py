"""A small sound model that was trained on attacked images, and enough images to check it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.iterative import PGD
from medrobust.checklist.run import CheckedModel, check_model
from medrobust.core.params.attacks import AttacksParams, SuiteParams
from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset
from tests.checklist.broken import Noise

#: The radius of the checks: about half of the images are robust.
EPS = 15 / 255
EPS_L2 = 0.65
SOUND = [
    {"name": "fgsm"},
    {"name": "pgd", "steps": 10, "loss": "margin"},
    {"name": "pgd", "steps": 10, "loss": "margin", "alpha": EPS},
    {"name": "pgd", "steps": 20, "restarts": 2},
]
REPORT = ReportParams(title="t", bootstrap=200, confidence=0.95, pictures=True, cases=0, repeated=[])

Check = Callable[..., dict[str, Any]]


def suite_of(attacks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A resolved Linf suite at half the radius of the checks and at it."""
    return resolve_suite("s", SuiteParams(norm="Linf", eps=[EPS / 2, EPS], attacks=attacks or SOUND))


def l2_suite_of(*attacks: dict[str, Any]) -> dict[str, Any]:
    """A resolved L2 suite. At the middle radius, where it is checked, about half of the images are robust."""
    return resolve_suite("s", SuiteParams(norm="L2", eps=[0.4, EPS_L2, 1.0], attacks=list(attacks)))


@pytest.fixture(scope="session")
def images() -> Subset:
    """450 grey images of 45 patients in three classes, which differ in the position of a bright bar."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 150)
    pixels = rng.normal(100, 25, (450, 12, 12))
    for row, label in enumerate(labels):
        pixels[row, :, 4 * label : 4 * label + 4] += 35
    ids = np.array([f"i{number}" for number in range(450)])
    patients = np.array([f"p{number // 10}" for number in range(450)])
    return Subset(np.clip(pixels, 1, 254).astype(np.uint8), np.arange(450), labels, ids, patients, ["a", "b", "c"])


def network() -> nn.Module:
    """A small untrained network."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(288, 24), nn.GELU(), nn.Linear(24, 3),
    )  # fmt: skip


def train(
    images: Subset,
    perturb: Callable[[nn.Module, Tensor, Tensor, int], Tensor],
    build: Callable[[], nn.Module] = network,
) -> nn.Module:
    """A small network in eval mode, trained on clean and on perturbed images."""
    torch.manual_seed(0)
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(90):
        rows = torch.randint(0, len(images), (64,)).numpy()
        batch, labels = images.batch(rows), images.targets(rows)
        perturbed = perturb(model, batch, labels, step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(torch.cat([batch, perturbed])), labels.repeat(2)).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def sound(images: Subset) -> nn.Module:
    """A model that was trained on attacked images."""
    attack = PGD(eps=EPS, steps=3, stop_when_fooled=False)
    return train(
        images, lambda model, batch, labels, step: attack(model, batch, labels, seeds=torch.arange(64) + step)
    )


@pytest.fixture(scope="session")
def noisy(images: Subset) -> nn.Module:
    """A model that was trained on noise."""
    return train(
        images,
        lambda model, batch, labels, step: Noise(eps=EPS)(model, batch, labels, seeds=torch.arange(64) + step),
    )


@pytest.fixture(scope="session")
def check(images: Subset) -> Check:
    """(model, suites, changes of the `CheckedModel`) -> the record of the checklist."""

    def run(
        model: nn.Module,
        suites: Mapping[str, dict[str, Any]] | None = None,
        count: int = 40,
        queries: int = 100,
        **changes: Any,
    ) -> dict[str, Any]:
        suites = suites or {"s": suite_of()}
        attempts = changes.pop("attempts", None) or {
            name: attack_suite(model, images, suite, seed=0, allow_weak=True) for name, suite in suites.items()
        }
        checked = CheckedModel(
            model=model, subset=images, suites=suites, attempts=attempts, adversarial=True, **changes
        )
        specs = {"s": {"norm": "Linf", "eps": [EPS], "attacks": [{"name": "pgd"}]}}
        params = AttacksParams.model_validate({
            "suites": specs, "surrogates": [], "on_invalid": "warn",
            "check_images": count, "check_queries": queries,
        })  # fmt: skip
        return check_model(checked, eps=EPS, params=params, report=REPORT, seed=0)

    return run
