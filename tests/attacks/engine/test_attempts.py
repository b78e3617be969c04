"""The tables that are computed from the records."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from medrobust.attacks.engine.attempts import ATTEMPTS, RECORDS, stored_accuracy, table_of, worst_case
from medrobust.attacks.engine.evaluate import attack_suite, named_attacks
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset

EPS = [0.01, 0.02, 0.03]


def row(name: str, attack: str, eps: float, fooled: bool, distance: float, gap: float) -> dict[str, Any]:
    numbers = {"saturation": 1.0, "displacement": 0.0, "steps": 1, "gradients": 1, "queries": 1}
    return {
        "id": name, "patient": "p", "label": 0, "clean_pred": int(attack == "natural" and fooled),
        "attack": attack, "eps": eps, "fooled": fooled, "pred": int(fooled), "margin": gap, "distance": distance,
        **numbers,
    }  # fmt: skip


@pytest.fixture
def attempts() -> pd.DataFrame:
    """One image that is wrong, one fooled at 0.02, one never fooled, one fooled only outside the ball."""
    return table_of([
        row("wrong", "natural", 0, True, 0, 1.0),
        row("falls", "natural", 0, False, 0, -3.0),
        row("falls", "pgd", 0.03, True, 0.03, 0.4),
        row("falls", "pgd", 0.02, True, 0.018, 0.1),
        row("falls", "pgd", 0.01, False, 0.01, -0.5),
        row("falls", "stored", 0.02, False, 0.0196, -0.1),
        row("falls", "stored", 0.03, True, 0.0314, 0.2),
        row("stands", "natural", 0, False, 0, -3.0),
        row("stands", "fgsm", 0.03, False, 0.03, -1.0),
        row("stands", "pgd", 0.03, False, 0.029, -0.2),
        row("far", "natural", 0, False, 0, -3.0),
        row("far", "cw", 0.03, False, 0, -3.0),
    ])  # fmt: skip


def test_the_worst_case_of_each_image_at_each_radius(attempts: pd.DataFrame) -> None:
    table = worst_case(attempts, EPS)
    assert list(table.columns) == RECORDS
    assert list(table["id"]) == ["wrong", "falls", "stands", "far"] * 3
    fooled = table.pivot(index="id", columns="eps", values="fooled")
    assert list(fooled.loc["falls"]) == [False, True, True]
    assert list(fooled.loc["wrong"]) == [True] * 3
    assert not fooled.loc[["stands", "far"]].any(axis=None)
    last = table[table["eps"] == 0.03].set_index("id")
    assert (last.loc["falls", "fooled_at"], last.loc["falls", "fooled_by"]) == (0.02, "pgd")
    assert last.loc["falls", "distance"] == 0.018
    assert (last.loc["wrong", "fooled_at"], last.loc["wrong", "fooled_by"]) == (0, "natural")
    assert (last.loc["stands", "margin"], last.loc["stands", "distance"]) == (-0.2, 0.029)
    first = table[table["eps"] == 0.01].set_index("id")
    assert first.loc["falls", "margin"] == -0.5
    assert first["margin"].isna()["stands"], "no attempt had this radius"


def test_robust_accuracy_of_stored_images(attempts: pd.DataFrame) -> None:
    assert stored_accuracy(attempts, EPS) == [0.75, 0.75, 0.5]


def test_cheap_attacks_run_first_and_equal_names_are_distinguished() -> None:
    attacks = [
        {"name": "square", "queries": 30}, {"name": "cw"}, {"name": "pgd", "steps": 5},
        {"name": "pgd", "steps": 5, "loss": "margin"}, {"name": "fgsm"},
    ]  # fmt: skip
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.1], attacks=attacks))
    names = [name for name, _ in named_attacks(suite)]
    assert names == ["fgsm", "pgd(steps=5,loss=margin)", "pgd(steps=5)", "square", "cw"]


def test_records_of_an_evaluation(trained: nn.Module, subset: Subset) -> None:
    attacks = [{"name": "pgd", "steps": 4, "loss": "margin"}, {"name": "cw", "steps": 20, "c": 5.0}]
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.02, 0.3], attacks=attacks))
    table = attack_suite(trained, subset, suite, seed=0)
    assert dict(table.dtypes.astype(str)) == ATTEMPTS
    assert table["id"].drop_duplicates().tolist() == subset.ids.tolist()
    tried = table[~table["attack"].isin(["natural", "stored"])]
    assert (tried["distance"] <= tried["eps"] + 1e-6).all(), "an attack counts only inside the ball"
    assert ((tried["margin"] > 0) == tried["fooled"]).all()
    assert (tried["gradients"] > 0).all()
    whole = tried[(tried["attack"] == "pgd") & ~tried["fooled"]]
    assert (whole["gradients"] == 4).all()
    assert (whole["steps"] == 4).all()
    assert tried["saturation"].between(0, 1).all()


def test_stored_images_have_the_levels_of_a_file(trained: nn.Module, subset: Subset) -> None:
    radii = [0.001, 0.0882]
    suite = resolve_suite("s", SuiteParams(norm="Linf", eps=radii, attacks=[{"name": "pgd", "steps": 4}]))
    table = attack_suite(trained, subset, suite, seed=0, bit_depth=8)
    stored = table[table["attack"] == "stored"]
    levels = stored["distance"] * 255
    assert np.allclose(levels, levels.round(), atol=1e-3)
    # 22.49 levels are rounded to 22 in both directions; truncation would give 23 downwards.
    assert (stored["distance"] <= stored["eps"] + 0.5 / 255 + 1e-6).all()
    assert not len(stored[(stored["eps"] == 0.001) & stored["fooled"]]), "less than half a level disappears"
    robust = stored_accuracy(table, radii)
    fooled = worst_case(table, radii).groupby("eps")["fooled"].mean()
    assert robust[0] == table[table["attack"] == "natural"]["fooled"].eq(False).mean()
    assert robust[1] >= 1 - fooled[0.0882] - 1e-9


def test_hopeless_attempts_end_early_and_results_stay(trained: nn.Module, subset: Subset) -> None:
    attacks = [{"name": "pgd", "steps": 30, "loss": "margin"}, {"name": "square", "queries": 100}]
    plain = SuiteParams(norm="Linf", eps=[0.02, 0.05, 0.1], attacks=attacks)
    full = attack_suite(trained, subset, resolve_suite("s", plain), seed=0)
    early = attack_suite(trained, subset, resolve_suite("s", plain.model_copy(update={"give_up": True})), seed=0)
    fooled = [worst_case(table, plain.eps)["fooled"] for table in (full, early)]
    assert abs(fooled[0].sum() - fooled[1].sum()) <= 1
    assert early["gradients"].sum() < 0.8 * full["gradients"].sum()
    assert early["queries"].sum() < 0.8 * full["queries"].sum()
