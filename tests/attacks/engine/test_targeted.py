"""Targeted success from records, compared with attacks that run on their own."""

from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from medrobust.attacks.engine.attempts import table_of
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.engine.targeted import targeted_success
from medrobust.attacks.methods.iterative import CWPGD
from medrobust.attacks.targets import choose_targets
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.report import ReportParams
from medrobust.data.store import Subset

REPORT = ReportParams(title="t", bootstrap=200, confidence=0.95, pictures=True, cases=0, repeated=[])
EPS = [0.1, 0.2]
COSTS = [[0, 1, 5], [9, 0, 1], [9, 3, 0]]


def resolved(*attacks: dict[str, Any]) -> dict[str, Any]:
    return resolve_suite("s", SuiteParams(norm="Linf", eps=EPS, attacks=list(attacks)))


def row(subset: Subset, index: int, attack: str, eps: float, pred: int, distance: float) -> dict[str, Any]:
    label = int(subset.labels[index])
    return {
        "id": subset.ids[index], "patient": subset.patients[index], "label": label, "clean_pred": label,
        "attack": attack, "eps": eps, "fooled": pred != label, "pred": pred, "margin": 0.0, "distance": distance,
        "saturation": 1.0, "displacement": 0.0, "steps": 1, "gradients": 1, "queries": 1,
    }  # fmt: skip


@pytest.fixture
def attempts(subset: Subset) -> pd.DataFrame:
    """Of class 1, one image reaches class 0 nearby, one far away, one only class 2, and one is wrong anyway."""
    rows = [row(subset, index, "natural", 0.0, int(label), 0.0) for index, label in enumerate(subset.labels)]
    rows += [
        row(subset, 16, "bim", 0.2, 0, 0.19), row(subset, 16, "bim", 0.1, 0, 0.1),
        row(subset, 17, "bim", 0.2, 0, 0.15), row(subset, 17, "bim", 0.1, 2, 0.1),
        row(subset, 18, "bim", 0.2, 2, 0.2),
        row(subset, 19, "stored", 0.1, 0, 0.1),
    ]  # fmt: skip
    table = table_of(rows)
    table.loc[table["id"] == subset.ids[20], "clean_pred"] = 0
    return table


def test_only_the_target_counts_and_only_inside_the_radius(
    trained: nn.Module, subset: Subset, attempts: pd.DataFrame
) -> None:
    found = targeted_success(trained, subset, resolved({"name": "bim", "target": "healthy"}), attempts, REPORT)
    counted = 24 - 1  # classes 1 and 2 without the image that is wrong anyway
    assert found["targeted_n"] == {"healthy": counted}
    assert found["targeted_success"] == {"healthy": {"0.1": 1 / counted, "0.2": 2 / counted}}
    low, high = found["targeted_success_ci"]["healthy"]["0.2"]
    assert 0 <= low < 2 / counted < high < 0.6


def test_a_suite_without_targets_has_no_targeted_success(
    trained: nn.Module, subset: Subset, attempts: pd.DataFrame
) -> None:
    assert targeted_success(trained, subset, resolved({"name": "bim"}), attempts, REPORT) == {}


def test_targets_are_distinguished_and_a_target_without_images_has_no_share(
    trained: nn.Module, subset: Subset, attempts: pd.DataFrame
) -> None:
    other = [[0, 5, 1], [1, 0, 9], [1, 9, 0]]
    suite = resolved(
        {"name": "bim", "target": 1}, {"name": "cw_pgd", "target": "most_costly", "costs": COSTS},
        {"name": "bim", "target": "most_costly", "costs": other},
        {"name": "targeted_bim"},
    )  # fmt: skip
    found = targeted_success(trained, subset, suite, attempts, REPORT)
    assert set(found["targeted_n"]) == {
        "1", f"most_costly {COSTS}", f"most_costly {other}", "least_likely",
    }  # fmt: skip
    assert found["targeted_success"][f"most_costly {COSTS}"]["0.2"] == 2 / 39
    assert found["targeted_success"][f"most_costly {other}"]["0.2"] == 2 / 39  # class 2 from class 1
    only = Subset(
        subset.store_images, subset.rows[16:28], subset.labels[16:28], subset.ids[16:28], subset.patients[16:28],
        subset.classes,
    )  # fmt: skip
    part = attempts[attempts["id"].isin(only.ids)]
    none = targeted_success(trained, only, resolved({"name": "bim", "target": 1}), part, REPORT)
    assert none["targeted_n"] == {"1": 0}
    assert none["targeted_success"] == none["targeted_success_ci"] == {"1": {"0.1": None, "0.2": None}}


@pytest.mark.parametrize("target", ["next_up", "least_likely", "most_costly"])
def test_the_engine_reaches_as_many_targets_as_the_attack_alone(
    target: str, trained: nn.Module, subset: Subset
) -> None:
    settings: dict[str, Any] = {"target": target, **({"costs": COSTS} if target == "most_costly" else {})}
    suite = resolved({"name": "cw_pgd", "random_start": False, **settings})
    attempts = attack_suite(trained, subset, suite, seed=0)
    found = targeted_success(trained, subset, suite, attempts, REPORT)
    images, labels = subset.batch(range(40)), subset.targets(range(40))
    targets = choose_targets(trained, images, labels, target, settings.get("costs"))
    counted = (trained(images).argmax(1) == labels) & (targets != labels)
    assert found["targeted_n"] == {target: int(counted.sum())}
    shares = []
    for eps in EPS:
        adv = CWPGD(eps=eps, random_start=False, **settings)(trained, images, labels, seeds=torch.arange(40))
        reached = (trained(adv).argmax(1) == targets)[counted].float().mean().item()
        shares.append(found["targeted_success"][target][f"{eps:g}"])
        assert shares[-1] == pytest.approx(reached, abs=0.03), "smaller radii start from larger ones"
    assert shares[-1] > 0
    assert shares == sorted(shares)
