"""The table of defences says what the records say, and which record is missing."""

from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.records import write_metrics
from tools.defence_table import table


def write(folder: Path, regime: str, value: float) -> None:
    trained = {"balanced_accuracy": value, "balanced_accuracy_ci": [0.1, 0.9]}
    write_metrics(folder / "train" / f"net-{regime}.json", trained, {})
    attacked: dict[str, Any] = {"robust_accuracy": {"0.005": 0.25}, "robust_accuracy_ci": {"0.005": [0.2, 0.3]}}
    attacked["robust_balanced_accuracy"] = {"0.005": 0.125}
    write_metrics(folder / "attack" / f"net-{regime}-pgd.json", attacked, {})


def test_one_row_per_model(tmp_path: Path) -> None:
    write(tmp_path, "clean", 0.5)
    write(tmp_path, "adv", 0.75)
    found = table(tmp_path, [("net", "clean"), ("net", "adv")], ["pgd"])
    assert found.columns == [
        "model", "training", "clean balanced accuracy", "pgd ε 0.005: balanced accuracy", "pgd ε 0.005: accuracy",
    ]  # fmt: skip
    assert found.rows[0] == ["net", "clean", "0.500 [0.100, 0.900]", "0.125", "0.250 [0.200, 0.300]"]
    assert found.rows[1] == ["net", "adv", "0.750 [0.100, 0.900]", "0.125", "0.250 [0.200, 0.300]"]


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    write(tmp_path, "clean", 0.5)
    with pytest.raises(UserError, match=r"net-adv\.json: is missing.*dvc repro adv_train attack"):
        table(tmp_path, [("net", "clean"), ("net", "adv")], ["pgd"])
