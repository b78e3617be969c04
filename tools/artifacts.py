"""Name the published models for DVC's model registry: write models/dvc.yaml from params.yaml.

A section `artifacts` cannot be repeated by a matrix, so `make preset` and `make repro` write it, into a dvc.yaml
of its own. `python -m tools.artifacts` writes it after an edit of `models` or `ensemble` in
params.yaml.
"""

from pathlib import Path
from typing import Any

import yaml

from medrobust.core.params.schema import Params, load_params

#: In the folder that `publish` writes to: paths of artifacts are relative to their file.
FILE = Path("models", "dvc.yaml")
HEAD = """# The models that `publish` writes, for DVC's model registry (docs/sharing.md, Model registry).
# Written from `models` and `ensemble` of params.yaml by `make preset`, `make repro`, `python -m tools.artifacts`.
"""
TRAINING = {"clean": "trained on clean images", "adv": "trained on clean images, then adversarially"}


def render(params: Params) -> str:
    """The text of the file: one artifact per backbone and regime, and the ensemble."""
    artifacts: dict[str, Any] = {
        f"{backbone}-{regime}": {
            "path": f"{backbone}/{regime}",
            "type": "model",
            "desc": f"{model.timm}, {TRAINING[regime]}",
            "labels": [regime, backbone],
        }
        for backbone, model in params.models.items()
        for regime in TRAINING
    }
    regime = params.ensemble.regime
    artifacts[f"ensemble-{regime}"] = {
        "path": f"ensemble/{regime}",
        "type": "model",
        "desc": f"{params.ensemble.method} ensemble of models, {TRAINING[regime]}",
        "labels": [regime, "ensemble"],
    }
    return HEAD + yaml.safe_dump({"artifacts": artifacts}, sort_keys=False, width=200)


def write_artifacts(params: Params) -> None:
    """Write the file if its content has changed; call it in the top folder of the repository."""
    text = render(params)
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_artifacts(load_params())
