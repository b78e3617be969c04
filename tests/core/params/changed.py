"""The default parameters with changes, written to a file and read again."""

from pathlib import Path
from typing import Any

from medrobust.core.params.schema import Params, load_params
from tests.params import preset, save


def load_changed(folder: Path, key: str, value: Any) -> Params:
    """The default parameters with another value at a dotted key."""
    content = preset()
    parent: Any = content
    *path, last = key.split(".")
    for part in path:
        parent = parent[part]
    parent[last] = value
    return load_params(save(folder, content))
