"""What the cells of an external data set depend on: the suites that it names. Light: no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medrobust.attacks.engine.suite import read_suite
from medrobust.core.params.external import ExternalSetParams


def make_plan(block: ExternalSetParams, patient_suites: Sequence[str], suites: Path) -> dict[str, Any]:
    """The resolved `suites` of a set, the names of those that attack patients too, and the hashes of their code.

    `suites` is the folder of resolved suites, `patient_suites` those of the block `patient`.
    """
    resolved = [read_suite(suites / name) for name in block.suites]
    code = {entry: known for suite in resolved for entry, known in suite["code"].items()}
    both = [name for name in block.suites if name in patient_suites]
    return {"suites": resolved, "patient_suites": both, "code": code}
