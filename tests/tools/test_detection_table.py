"""The table of docs/results.md says both numbers, and which attack a supervised detector has not seen."""

import subprocess
import sys
from pathlib import Path

from medrobust.core.records import write_metrics
from tools.detection_table import table


def test_both_numbers_stand_in_a_cell() -> None:
    adaptive = {"unaware": {"successful_auroc": 0.98}, "worst": {"successful_auroc": 0.41}}
    suites = {"pgd": {"eps": 0.02, "gmm": {"adaptive": adaptive}, "lid": {"seen": False, "adaptive": adaptive}}}
    suites["cw"] = {
        "eps": 0.02,
        "gmm": {},
        "lid": {"seen": True, "adaptive": {"unaware": {"successful_auroc": None}}},
    }
    lines = table("net-clean", {"suites": suites}).splitlines()
    assert lines[2] == "| detector | pgd ε 0.02 | cw ε 0.02 |"
    assert lines[4:6] == ["| gmm | 0.980 → 0.410 | – → – |", "| lid | 0.980 → 0.410 (unseen) | – → – |"]


def test_no_record_is_said_in_one_line(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "detection_table.py"), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        "has no record of a model with detectors. Set models.B.detect, and run `dvc repro detect`" in done.stderr
    )
    row = {"adaptive": {kind: {"successful_auroc": 0.5} for kind in ("unaware", "worst")}}
    write_metrics(tmp_path / "off.json", {}, {})
    write_metrics(tmp_path / "m.json", {"suites": {"pgd": {"eps": 0.01, "gmm": row}}}, {})
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| gmm | 0.500 → 0.500 |" in done.stdout
