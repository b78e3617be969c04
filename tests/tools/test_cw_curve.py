"""Accuracy against the constant of Carlini & Wagner's attack, from records of one suite per constant."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import write_metrics
from tools.cw_curve import constants, curve


def suite(**attack: Any) -> SuiteParams:
    return SuiteParams.model_validate({"norm": "L2", "eps": [1.0, 100.0], "attacks": [{"name": "cw", **attack}]})


SUITES = {"large": suite(c=10, searches=1), "small": suite(c=0.1, searches=1), "other": suite(c=1)}


def write(folder: Path, name: str, value: float) -> None:
    robust = {"1.0": 0.9, "100.0": value}
    record = {
        "clean_accuracy": 0.95, "clean_accuracy_ci": [0.9, 1.0], "robust_accuracy": robust,
        "robust_accuracy_ci": {eps: [accuracy - 0.1, accuracy + 0.1] for eps, accuracy in robust.items()},
    }  # fmt: skip
    write_metrics(folder / "attack" / f"{name}.json", record, {})


def test_the_curve_starts_clean_and_rises_in_c(tmp_path: Path) -> None:
    for model, factor in (("net-clean", 0.1), ("net-adv", 1.0)):
        write(tmp_path, f"{model}-small", 0.8 * factor)
        write(tmp_path, f"{model}-large", 0.4 * factor)
    found = constants(SUITES)
    assert found == {0.1: "small", 10.0: "large"}, "a suite that searches has no constant"
    assert list(found) == [0.1, 10.0]
    rows = curve(tmp_path, ["net-clean", "net-adv"], found)
    assert [(row["model"], row["c"], round(row["accuracy"], 3)) for row in rows] == [
        ("net-clean", 0.0, 0.95), ("net-clean", 0.1, 0.08), ("net-clean", 10.0, 0.04),
        ("net-adv", 0.0, 0.95), ("net-adv", 0.1, 0.8), ("net-adv", 10.0, 0.4),
    ]  # fmt: skip
    assert rows[4]["low"] == pytest.approx(0.7)


def test_a_run_without_constants_or_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no suite has a single attack cw with one constant"):
        constants({"other": SUITES["other"]})
    with pytest.raises(UserError, match=r"suites\.twice: has c 0\.1, as small"):
        constants({**SUITES, "twice": SUITES["small"]})
    with pytest.raises(UserError, match=r"net-adv-small\.json: is missing.*dvc repro attack"):
        curve(tmp_path, ["net-adv"], constants(SUITES))
