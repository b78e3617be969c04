"""Parameters for tests: presets as plain values, and blocks that take all other keys from presets/default.yaml."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from dvc.utils.serialize import dumps_yaml

from medrobust.core.params.base import Block
from medrobust.core.params.yaml_file import parse_params
from tools.preset import render

B = TypeVar("B", bound=Block)


def preset(name: str = "default") -> dict[str, Any]:
    """A preset as plain values, which the caller may change."""
    return deepcopy(_values(name))


@cache
def _values(name: str) -> dict[str, Any]:
    return parse_params(render(name), name)


def default_block(kind: type[B], key: str, **changes: Any) -> B:
    """The block at a dotted key of the default parameters, with changes."""
    values: Any = _values("default")
    for part in key.split("."):
        values = values[part]
    return kind.model_validate({**values, **changes})


def save(folder: Path, content: dict[str, Any]) -> Path:
    """Write params.yaml as DVC would."""
    path = folder / "params.yaml"
    path.write_text(dumps_yaml(_copied(content)))
    return path


def _copied(value: Any) -> Any:
    """A copy in which no object occurs twice, because such an object becomes an anchor."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
