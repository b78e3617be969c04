"""What the cells of an external data set depend on: the suites that it names. Light: no torch."""

from pathlib import Path
from typing import Any

from medrobust.attacks.engine.suite import read_suite
from medrobust.core.params.external import ExternalSetParams


def make_plan(block: ExternalSetParams, suites: Path) -> dict[str, Any]:
    """The resolved `suites` and `patient_suites` of a set, read from a folder, and the hashes of their `code`."""
    found = {
        "suites": [read_suite(suites / name) for name in block.suites],
        "patient_suites": [read_suite(suites / name) for name in block.patient_suites],
    }
    code = {entry: known for part in found.values() for suite in part for entry, known in suite["code"].items()}
    return {**found, "code": code}
