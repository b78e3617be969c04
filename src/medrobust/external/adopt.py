"""Take over a result of `medrobust evaluate --out` of a model of this run; light: no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON
from medrobust.core.records import read_json, write_metrics
from medrobust.models.card import weights_hash

#: Keys of the file; a record of the pipeline has those after the first three.
KEYS = ("model", "suites", "skipped", "n", "patients", "counts", "clean", "attacks", "detectors")
AGAIN = "Run `medrobust evaluate MODEL --data ... --out` again"


def adopt_result(file: Path, name: str, models: Iterable[Path], out: Path) -> None:
    """Write the metrics of an external set from a file, without the names of its images.

    Args:
        file: the result.
        name: of the external set.
        models: folders of all models of this run.
        out: metrics file.

    Raises:
        UserError: the file is missing or no such result, or its model is not one of `models`.
    """
    content: Any = read_json(file)
    if not isinstance(content, dict) or (lacking := [key for key in KEYS if key not in content]):
        found = f"lacks {', '.join(lacking)}" if isinstance(content, dict) else "holds no JSON object"
        raise UserError(str(file), f"is not a result of this version: it {found}", AGAIN)
    known = {weights_hash(folder): folder for folder in models}
    if content["model"] not in known:
        found = f"is the result of another model (sha256 {str(content['model'])[:12]}…)"
        raise UserError(
            str(file), found, f"{AGAIN} with a model of this run, or remove it from external.evaluated"
        )
    record = {key: content[key] for key in KEYS[3:]}
    record |= {"set": name, "skipped": len(content["skipped"])}
    made_on = {"weights": content["model"], "suites": content["suites"]}
    clean = content["clean"]
    shown = {"balanced_accuracy": round_to_interval(clean["balanced_accuracy"], clean["balanced_accuracy_ci"])}
    write_metrics(out, {**record, MADE_ON: made_on}, shown)
