"""The files that an attack cell writes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import nn

from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.run import AttackOutputs, _first_attack, _point, run_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.core.lineage import MADE_ON, TABLES
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import file_hash, read_metrics, read_table
from medrobust.data.store import Subset

MADE_ON_THIS = {"weights": "w", "suite": "s"}
REPORT = ReportParams(title="t", bootstrap=200, confidence=0.95, pictures=True, cases=0, repeated=[])


def worst_cases(classes: int) -> pd.DataFrame:
    """Forty images of ten patients; fooled ones have a wrong prediction."""
    rng = np.random.default_rng(0)
    label = np.arange(40) % classes
    fooled = rng.random(40) < 0.4
    answer = np.where(fooled, (label + rng.integers(1, classes, 40)) % classes, rng.integers(0, classes, 40))
    patient = [f"p{number}" for number in label + classes * (np.arange(40) % 3)]
    return pd.DataFrame({"label": label, "adv_pred": answer, "fooled": fooled, "patient": patient})


@pytest.mark.parametrize("classes", [2, 4])
def test_a_radius_counts_the_worst_case(classes: int) -> None:
    """The prediction of a failed attack does not count."""
    table = worst_cases(classes)
    truth, answer = table["label"], np.where(table["fooled"], table["adv_pred"], table["label"])
    point = _point(table, [f"c{k}" for k in range(classes)], REPORT)
    assert point["robust_accuracy"] == pytest.approx((truth == answer).mean())
    assert point["robust_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answer))
    recalls = [point[f"robust_recall_c{k}"] for k in range(classes)]
    assert recalls == pytest.approx(recall_score(truth, answer, average=None))
    assert point["low"] <= point["robust_accuracy"] <= point["high"]
    assert point["balanced_low"] <= point["robust_balanced_accuracy"] <= point["balanced_high"]
    for name in (f"recall_c{k}" for k in range(classes)):
        assert point[f"robust_{name}_low"] <= point[f"robust_{name}"] <= point[f"robust_{name}_high"]


@given(st.integers(0, 1000))
def test_a_radius_does_not_depend_on_which_wrong_class_was_found(seed: int) -> None:
    """A suite stops at the first wrong class, so that kappa or F1 would be far from the worst case."""
    table, rng = worst_cases(4), np.random.default_rng(seed)
    other = table.assign(adv_pred=(table["label"] + rng.integers(1, 4, len(table))) % 4)
    classes = ["a", "b", "c", "d"]
    assert _point(other, classes, REPORT) == _point(table, classes, REPORT)


def test_a_class_that_is_absent_has_no_recall() -> None:
    point = _point(worst_cases(2), ["c0", "c1", "c2"], REPORT)
    assert (point["robust_recall_c2"], point["robust_recall_c2_low"]) == (None, None)
    assert point["robust_recall_c0"] is not None


def test_the_first_attack_has_the_numbers_of_a_suite_of_its_own(trained: nn.Module, subset: Subset) -> None:
    """A one-step attack is tried on every image at every radius; iterated attacks are not."""
    found = []
    for names in (["fgsm"], ["fgsm", "pgd"], ["pgd"], ["pgd", "apgd"]):
        params = SuiteParams(norm="Linf", eps=[0.02, 0.05, 0.1], attacks=[{"name": name} for name in names])
        suite = resolve_suite("s", params)
        attempts = attack_suite(trained, subset, suite, seed=0)
        found.append((_first_attack(attempts, suite, REPORT), worst_case(attempts, suite["eps"])))
    alone = 1 - found[0][1].groupby("eps")["fooled"].mean()
    assert [first for first, _ in (found[0], *found[2:])] == [{}, {}, {}]
    first, worst = found[1]
    assert first["first_attack"] == "fgsm"
    assert first["first_attack_accuracy"] == {f"{eps:g}": pytest.approx(value) for eps, value in alone.items()}
    for eps, value in first["first_attack_accuracy"].items():
        low, high = first["first_attack_accuracy_ci"][eps]
        assert low <= value <= high
    assert (1 - worst.groupby("eps")["fooled"].mean() <= alone).all()


@pytest.mark.parametrize("target", [None, "next_up"])
def test_the_three_files_of_a_cell_agree(
    target: str | None, trained: nn.Module, subset: Subset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack = {"name": "cw_pgd", "steps": 5, **({"target": target} if target else {})}
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.1, 0.2], attacks=[attack]))
    records, metrics, curve = tmp_path / "r.parquet", tmp_path / "m.json", tmp_path / "c.csv"
    run_suite(
        trained,
        subset,
        suite,
        AttackOutputs(records, metrics, curve),
        bit_depth=8,
        seed=0,
        report=REPORT,
        made_on=MADE_ON_THIS,
    )
    found, attempts, points = read_metrics(metrics), read_table(records), read_table(curve)
    assert found[TABLES] == {"c.csv": file_hash(curve)}
    assert found[MADE_ON] == attempts.attrs[MADE_ON] == MADE_ON_THIS
    assert found["robust_accuracy"] == {
        f"{point['eps']:g}": point["robust_accuracy"] for point in points.to_dict("records")
    }
    fooled = attempts[attempts["fooled"] & (attempts["attack"] != "stored") & (attempts["distance"] <= 0.2 + 1e-6)]
    assert found["robust_accuracy"]["0.2"] == pytest.approx(1 - fooled["id"].nunique() / 40, abs=1e-4)
    assert found["gradient_evaluations"] == attempts["gradients"].sum()
    targeted = {key for key in found if key.startswith("targeted")}
    assert targeted == ({"targeted_n", "targeted_success", "targeted_success_ci"} if target else set())
    assert not list(tmp_path.glob("tmp/resume/*")), "the folder is removed at the end"
