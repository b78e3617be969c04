"""The transfer matrix agrees with attacks that are run by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medrobust.attacks.engine.all_steps import attacks_with_all_steps, strongest
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.attacks.methods.iterative import PGD
from medrobust.core import metrics
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.report import ReportParams
from medrobust.core.params.transfer import TransferParams
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.ensembling.transfer import (
    CLEAN,
    MATRIX,
    PER_MEMBER,
    dvc_metrics,
    empty_transfer,
    transfer,
)
from medrobust.models.ensemble import EnsembleClassifier

REPORT = ReportParams(title="t", bootstrap=30, confidence=0.9, pictures=True, cases=0, repeated=[])
EPS = 0.05
Found = tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


def pictures(count: int = 12) -> Subset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    ids = np.array([f"i{k}" for k in range(count)])
    return Subset(pixels, np.arange(count), np.arange(count) % 3, ids, ids, ["a", "b", "c"])


def suite(*attacks: dict[str, Any]) -> dict[str, Any]:
    chosen = list(attacks) or [{"name": "pgd", "steps": 3}]
    return resolve_suite("s", SuiteParams(norm="Linf", eps=[0.01], attacks=chosen))


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {"x-clean": member(0), "x-adv": member(1)}


@pytest.fixture(scope="module")
def found(models: dict[str, nn.Module]) -> Found:
    ensemble = EnsembleClassifier(list(models.values()), [0.5, 0.5]).eval()
    params = TransferParams(suite="s", eps=EPS, member_eps=[EPS / 2, EPS], images=8)
    return transfer(
        models, ("ensemble", ensemble), list(models), pictures(), suite(), params=params, report=REPORT, seed=4
    )


def by_cell(table: pd.DataFrame) -> dict[tuple[str, str], dict[Any, Any]]:
    return {(row["source"], row["judge"]): row for row in table.to_dict("records")}


def attacked(model: nn.Module, subset: Subset) -> torch.Tensor:
    attack = PGD(eps=EPS, steps=3, stop_when_fooled=False)
    rows = range(len(subset))
    return attack(model, subset.batch(rows), subset.targets(rows), seeds=image_seeds(subset.ids, 4))


def test_every_cell_agrees_with_an_attack_by_hand(models: dict[str, nn.Module], found: Found) -> None:
    cells, few = by_cell(found[0]), pictures().evenly_spaced(8)
    evaluated = {**models, "ensemble": EnsembleClassifier(list(models.values()), [0.5, 0.5]).eval()}
    labels = torch.from_numpy(few.labels)
    for source, made_on in {CLEAN: None, **evaluated}.items():
        images = few.batch(range(8)) if made_on is None else attacked(made_on, few)
        for name, model in evaluated.items():
            logprobs = model(images).log_softmax(1).detach()
            row = cells[source, name]
            assert row["accuracy"] == pytest.approx(float((logprobs.argmax(1) == labels).float().mean()))
            assert row["log_loss"] == pytest.approx(float(nn.functional.nll_loss(logprobs, labels)), rel=1e-4)
            assert row["brier"] == pytest.approx(metrics.brier(few.labels, logprobs.double().numpy()), rel=1e-4)
            assert row["low"] <= row["accuracy"] <= row["high"]
            assert row["log_loss_low"] <= row["log_loss"] <= row["log_loss_high"]
    assert len(cells) == (1 + 3) * 3 + 1


def test_the_source_per_member_gives_each_member_its_own_image(models: dict[str, nn.Module], found: Found) -> None:
    few = pictures().evenly_spaced(8)
    parts = [model(attacked(model, few)).softmax(1) for model in models.values()]
    expected = (torch.stack(parts).mean(0).argmax(1).numpy() == few.labels).mean()
    assert by_cell(found[0])[PER_MEMBER, "ensemble"]["accuracy"] == pytest.approx(expected)
    assert found[1]["models"]["ensemble"]["per_member"] == pytest.approx(expected)


def test_each_member_is_attacked_alone_at_a_list_of_radii(models: dict[str, nn.Module], found: Found) -> None:
    half, whole = found[1]["per_member"]
    assert (half["eps"], whole["eps"]) == (EPS / 2, EPS)
    assert whole["accuracy"] == found[1]["models"]["ensemble"]["per_member"]
    few, attack = pictures().evenly_spaced(8), PGD(eps=EPS / 2, steps=3, stop_when_fooled=False)
    rows = range(8)
    parts = [
        model(attack(model, few.batch(rows), few.targets(rows), seeds=image_seeds(few.ids, 4))).softmax(1)
        for model in models.values()
    ]
    expected = (torch.stack(parts).mean(0).argmax(1).numpy() == few.labels).mean()
    assert half["accuracy"] == pytest.approx(expected)
    assert half["accuracy_ci"][0] <= half["accuracy"] <= half["accuracy_ci"][1]


def test_the_summary_names_the_source_with_the_lowest_accuracy(found: Found) -> None:
    table, facts, _ = found
    assert (facts["suite"], facts["eps"], facts["n"], facts["patients"]) == ("s", EPS, 8, 8)
    cells = table.set_index(["source", "judge"])["accuracy"]
    for evaluated, entry in facts["models"].items():
        others = [name for name in facts["models"] if name != evaluated]
        assert entry["worst"] == min(cells[source, evaluated] for source in others)
        assert cells[entry["worst_source"], evaluated] == entry["worst"]
        assert entry["own"] == cells[evaluated, evaluated]
        assert set(entry) >= {"own_ci", "worst_ci"}


def test_the_scores_are_those_of_the_matrix(found: Found) -> None:
    """Per model: clean images, and images made on it."""
    matrix, _, scores = found
    cells, columns = by_cell(matrix), [f"logprob_{k}" for k in range(3)]
    names = ("x-clean", "x-adv", "ensemble")
    assert len(scores) == 2 * len(names) * 8
    for source, name in [*((CLEAN, name) for name in names), *((name, name) for name in names)]:
        rows = scores[(scores["source"] == source) & (scores["judge"] == name)]
        labels, logprobs = rows["label"].to_numpy(), rows[columns].to_numpy()
        assert rows["id"].tolist() == pictures().evenly_spaced(8).ids.tolist()
        assert (rows["pred"] == labels).mean() == cells[source, name]["accuracy"]
        assert metrics.nll(labels, logprobs) == pytest.approx(cells[source, name]["log_loss"])


def test_attacks_do_not_stop_at_their_first_success() -> None:
    attacks = attacks_with_all_steps(suite({"name": "pgd", "steps": 3}, {"name": "bim"}, {"name": "fgsm"}), EPS)
    assert [getattr(attack, "stop_when_fooled", False) for attack in attacks] == [False] * 3
    assert {attack.eps for attack in attacks} == {EPS}


def test_the_strongest_image_over_several_attacks_is_used() -> None:
    model, data = member(0), pictures()
    images, labels = data.batch(range(12)), data.targets(range(12))
    weak, strong = PGD(eps=0.001, steps=1), PGD(eps=0.2, steps=5, stop_when_fooled=False)
    seeds = image_seeds(data.ids, 0)
    for order in ([weak, strong], [strong, weak]):
        attacked_images = strongest(model, order, images, labels, seeds)
        assert torch.equal(attacked_images, strong(model, images, labels, seeds=seeds))


def test_without_images_there_is_no_matrix() -> None:
    table, facts, scores = empty_transfer()
    assert list(table.columns) == MATRIX
    assert len(scores) == 0
    assert facts == {"n": 0}


def test_dvc_shows_the_ensembles_lowest_accuracy() -> None:
    row = {"own": 0.45, "own_ci": [0.3, 0.6], "worst": 0.4, "worst_ci": [0.3, 0.5], "per_member": 0.1}
    assert dvc_metrics({"eps": 0.02, "models": {"all": row}}, "all") == {"transfer@0.02": 0.4}
    assert dvc_metrics({"eps": 0.02, "models": {"all": row | {"own": 0.3}}}, "all") == {"transfer@0.02": 0.3}
    assert dvc_metrics(empty_transfer()[1], "all") == {}
