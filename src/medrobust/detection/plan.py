"""What detection uses, in one small file that its cells depend on: an edit elsewhere re-runs none of them.

Cells cannot list in dvc.yaml which suites and detectors params.yaml names. The plan can: it holds the suites that
are named, and a hash of the source files that the named detectors run. Light: no torch.
"""

from pathlib import Path
from typing import Any

from medrobust.attacks.engine.resolved import read_suite
from medrobust.core.code_hash import code_hash
from medrobust.core.errors import UserError
from medrobust.core.params.detection import DetectParams
from medrobust.detection.registry import DETECTORS


def make_plan(detect: DetectParams, suites: Path) -> dict[str, Any]:
    """The plan: `suites` (name -> resolved suite), `detectors` (name -> module:class), `sources` (hash of code).

    Args:
        detect: the block `detect`.
        suites: folder of the resolved suites.

    Raises:
        UserError: no such detector, or a suite that was not resolved.
    """
    for name in detect.detectors:
        if name not in DETECTORS:
            known = ", ".join(DETECTORS)
            raise UserError("params.yaml: detect.detectors", f"no detector {name!r}", f"Known: {known}")
    kinds = {name: DETECTORS[name] for name in detect.detectors}
    return {
        "suites": {name: read_suite(suites / name) for name in detect.suites},
        "detectors": kinds,
        "sources": code_hash(kind.partition(":")[0] for kind in kinds.values()),
    }
