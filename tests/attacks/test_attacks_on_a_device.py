"""Attacks, the engine and the checks give the same results on another device as on the CPU."""

import copy
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.engine.targeted import targeted_success
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset
from tests.attacks.conftest import AttackedModel
from tests.attacks.test_contract import CASES, RADII, Make, train_images
from tests.other_device import other_device

REPORT = ReportParams(title="t", bootstrap=20, confidence=0.9, pictures=True, cases=0, repeated=[])


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_attack_gives_the_result_of_the_cpu(
    name: str, norm: str, attacked_model: Callable[..., AttackedModel], make_attack: Make
) -> None:
    known, eps, settings = attacked_model(4), RADII[norm], {"norm": norm}
    few = slice(0, 2 if name == "torchattacks" else 8)
    images, labels, seeds = known.images[few], known.labels[few], known.seeds[few]
    attack = make_attack(name, eps, known, train_images(1), **settings)
    expected = attack(known, images, labels, seeds=seeds)
    with other_device() as device:
        model = nn.Sequential(*copy.deepcopy(known)).to(device)
        attack = make_attack(name, eps, model, train_images(1).resident(device), **settings)
        found = attack(model, images.to(device), labels.to(device), seeds=seeds.to(device))
        assert found.device == device
        found = found.cpu()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("settings", [{}, {"give_up": True}])
def test_a_suite_gives_the_records_of_the_cpu(
    settings: dict[str, Any], trained: nn.Module, subset: Subset
) -> None:
    attacks: list[dict[str, Any]] = [
        {"name": "pgd", "steps": 6, "restarts": 2}, {"name": "square", "queries": 10},
        {"name": "targeted_bim", "steps": 4},
    ]  # fmt: skip
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.02, 0.1], attacks=attacks, **settings))
    expected = attack_suite(trained, subset, suite, seed=0, batch_size=16)
    targeted = targeted_success(trained, subset, suite, expected, REPORT)
    with other_device() as device:
        model, there = copy.deepcopy(trained).to(device), subset.resident(device)
        found = attack_suite(model, there, suite, seed=0, batch_size=16)
        assert targeted_success(model, there, suite, found, REPORT) == targeted
    pd.testing.assert_frame_equal(found, expected)
