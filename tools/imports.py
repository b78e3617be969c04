"""Which source files a stage script runs: its imports of this package, followed to the end, without running it.

Imports inside functions count; imports under `if TYPE_CHECKING` do not. Modules that are named in strings
(plug-ins) are not followed: the registry of attacks is covered by `suite@S`, that of objectives by `settings@B`,
that of detectors by `detect_plan`, that of sources by `data.source`.
"""

import ast
from pathlib import Path

PACKAGE = "medrobust"


def source_files(script: Path, src: Path) -> set[Path]:
    """Files under `src/medrobust` that a script imports, directly or not; empty `__init__.py` are left out."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        for module in imported_modules(todo.pop()):
            path = module_file(module, src)
            if path is not None and path not in found:
                found.add(path)
                todo.append(path)
    return {path for path in found if path.stat().st_size}


def imported_modules(path: Path) -> set[str]:
    """Dotted names of the package's modules (and names in them) that a file imports at run time."""
    names: set[str] = set()
    for node in _runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == PACKAGE}


def module_file(module: str, src: Path) -> Path | None:
    """The file of a module; None for a package without code or for a name inside a module."""
    base = src.joinpath(*module.split("."))
    return base.with_suffix(".py") if base.with_suffix(".py").is_file() else None


def _runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        nodes.append(node)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        todo += node.orelse if typing_only and isinstance(node, ast.If) else list(ast.iter_child_nodes(node))
    return nodes
