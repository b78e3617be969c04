"""What detection uses, in one small file that its cells depend on: an edit elsewhere re-runs none of them.

Cells cannot list in dvc.yaml which suites and detectors params.yaml names. The plan can: it holds the suites that
are named, and a hash of the source files that the named detectors run. Light: no torch.
"""

import ast
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medrobust.detection.registry import DETECTORS
from medrobust.errors import UserError
from medrobust.params.detection import DetectParams
from medrobust.records import read_json


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
    files = sources({kind.partition(":")[0] for kind in kinds.values()})
    return {
        "suites": {name: read_json(suites / f"{name}.json") for name in detect.suites},
        "detectors": kinds,
        "sources": hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest(),
    }


def sources(modules: set[str]) -> dict[str, bytes]:
    """Source of the modules and of all in this package that they import, by dotted name."""
    found: dict[str, bytes] = {}
    todo = sorted(modules)
    while todo:
        name = todo.pop()
        spec = find_spec(name) if name.startswith("medrobust.") and name not in found else None
        if spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin).read_bytes()
        nodes = ast.walk(ast.parse(found[name]))
        todo += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return found
