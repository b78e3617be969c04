"""The default parameters, and the same with another block."""

from pathlib import Path
from typing import Any

import yaml

from medrobust.core.params.schema import Params, load_params


def defaults(root: Path) -> dict[str, Any]:
    """What the default file says, as plain values."""
    content: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text())
    return content


def load_with(root: Path, folder: Path, name: str, block: dict[str, Any] | None) -> Params:
    """The default file with the block `name` put in place of its own, or (None) taken out, written and read."""
    content = defaults(root)
    content.pop(name)
    if block is not None:
        content[name] = block
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return load_params(folder / "params.yaml")
