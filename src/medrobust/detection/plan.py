"""The suites and detectors that params.yaml names, in one small file that detection cells depend on. No torch.

Cells cannot list them in dvc.yaml; with the plan, an edit of a suite or a detector that is not named re-runs none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.attacks.engine.suite import read_suite
from medrobust.core.code import chosen_entries
from medrobust.core.params.detection import DetectParams


def make_plan(detect: DetectParams, suites: Path, code: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The plan: `suites` (name -> resolved suite), `detect` (the block without `ensemble`) and `code` (hashes).

    `suites` is the folder of the resolved suites. `code` has `detectors/<name>` -> hash, as the stage `code`
    writes it.

    Raises:
        UserError: no such detector, a wrong hyper-parameter of one, or a suite that was not resolved.
    """
    from medrobust.detection.base import build_detector  # imports torch

    for name, settings in detect.detectors.items():
        build_detector(name, settings, f"params.yaml: detect.detectors.{name}")
    resolved = {name: read_suite(suites / name) for name in detect.suites}
    used = {key: known for suite in resolved.values() for key, known in suite["code"].items()}
    used |= chosen_entries(code, "detectors", detect.detectors)
    block = detect.model_dump(mode="json", exclude={"ensemble"})
    return {"suites": resolved, "detect": block, "code": used}
