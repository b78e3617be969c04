"""The plan changes with what detection uses, and with nothing else; it costs no torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.code_hash import sources
from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.core.records import write_json
from medrobust.detection.plan import make_plan
from medrobust.detection.registry import DETECTORS
from tests.params import default_block


def plan(folder: Path, **detect: Any) -> dict[str, Any]:
    for name in ("pgd", "fgsm"):
        write_json(folder / name / "suite.json", {"name": name, "attacks": []})
    return make_plan(default_block(DetectParams, "detect", **{"suites": {"pgd": 0.01}, **detect}), folder)


def test_the_plan_holds_the_suites_and_the_code_in_use(tmp_path: Path) -> None:
    first = plan(tmp_path, detectors={"gmm": {}})
    assert first["suites"] == {"pgd": {"name": "pgd", "attacks": []}}
    assert plan(tmp_path, detectors={"gmm": {"components": 3}})["sources"] == first["sources"]
    assert plan(tmp_path, detectors={"gmm": {}, "kde": {}})["sources"] != first["sources"]


@pytest.mark.parametrize(("name", "helper"), [("gmm", "features"), ("kde", "distances"), ("lid", "logistic")])
def test_the_code_of_a_detector_is_what_it_imports(name: str, helper: str) -> None:
    found = sources({DETECTORS[name].partition(":")[0]})
    assert {f"medrobust.detection.{helper}", f"medrobust.detection.detectors.{helper}"} & set(found)
    others = {DETECTORS[other].partition(":")[0] for other in DETECTORS if other != name}
    assert not others & set(found)


def test_what_does_not_exist_is_named_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no detector 'gnn'.*gmm"):
        plan(tmp_path, detectors={"gnn": {}})
    with pytest.raises(UserError, match=r"cw/suite\.json: no such file"):
        plan(tmp_path, suites={"cw": 0.01})


def test_the_plan_needs_no_torch() -> None:
    code = "import sys, medrobust.detection.plan; assert not {'torch', 'sklearn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
