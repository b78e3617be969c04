"""The plan changes with what detection uses, and with nothing else; it costs no torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.core.records import write_json
from medrobust.detection.plan import make_plan
from medrobust.detection.registry import DETECTORS
from tests.params import default_block


def plan(folder: Path, **detect: Any) -> dict[str, Any]:
    for name in ("pgd", "fgsm"):
        write_json(folder / name / "suite.json", {"name": name, "attacks": [], "code": {"attacks/pgd": "p"}})
    code = {f"detectors/{name}": name for name in DETECTORS}
    return make_plan(default_block(DetectParams, "detect", **{"suites": {"pgd": 0.01}, **detect}), folder, code)


def test_the_plan_holds_the_suites_and_the_code_in_use(tmp_path: Path) -> None:
    first = plan(tmp_path, detectors={"gmm": {}})
    assert first["suites"]["pgd"]["name"] == "pgd"
    assert first["code"] == {"attacks/pgd": "p", "detectors/gmm": "gmm"}
    assert set(plan(tmp_path, detectors={"gmm": {}, "kde": {}})["code"]) == {*first["code"], "detectors/kde"}


def test_what_does_not_exist_is_named_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no detector 'gnn'.*gmm"):
        plan(tmp_path, detectors={"gnn": {}})
    with pytest.raises(UserError, match=r"cw/suite\.json: no such file"):
        plan(tmp_path, suites={"cw": 0.01})


def test_the_plan_needs_no_torch() -> None:
    code = "import sys, medrobust.detection.plan; assert not {'torch', 'sklearn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
