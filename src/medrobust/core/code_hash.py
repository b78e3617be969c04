"""A hash of source files, for results that depend on code which no stage can list because params name it."""

import ast
import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def code_hash(modules: Iterable[str], within: str = "medrobust") -> str:
    """sha256 over the `sources` of modules."""
    found = sources(modules, within)
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()


def sources(modules: Iterable[str], within: str = "medrobust") -> dict[str, bytes]:
    """Source of modules and of all that they import, directly or not, by dotted name.

    Args:
        modules: dotted names.
        within: package whose modules count; others are neither read nor followed.
    """
    found: dict[str, bytes] = {}
    todo = sorted(modules)
    while todo:
        name = todo.pop()
        spec = find_spec(name) if name.startswith(f"{within}.") and name not in found else None
        if spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin).read_bytes()
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module:
                todo.append(node.module)
            elif isinstance(node, ast.Import):
                todo.extend(alias.name for alias in node.names)
    return found
