"""Suites as stages read them: what `suite@S` fixed, with the surrogates that it names. Light: no torch."""

from pathlib import Path
from typing import Any

from medrobust.core.records import file_hash, read_json, write_json


def write_surrogate(model: Path, out: Path) -> None:
    """Fix which weights a surrogate's name stands for: `source` (the folder) and `sha256`.

    Args:
        model: a checkpoint's folder.
        out: JSON file beside the suite's, called after the surrogate.
    """
    write_json(out, {"source": str(model), "sha256": file_hash(model / "model.safetensors")})


def read_suite(folder: Path) -> dict[str, Any]:
    """A resolved suite: `<folder>/suite.json`, with the weights of each surrogate from `<folder>/<name>.json`.

    DVC knows such a file as the output of a stage that depends on the model: whoever depends on the folder runs
    after the surrogate was trained, and again when it was retrained.

    Raises:
        UserError: a file is missing.
    """
    suite: dict[str, Any] = read_json(folder / "suite.json")
    for entry in suite["attacks"]:
        settings = entry["hyperparameters"]
        if entry["name"] == "transfer" and not settings.get("sha256"):
            entry["hyperparameters"] = settings | read_json(folder / f"{settings['source']}.json")
    return suite
