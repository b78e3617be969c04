"""The house keeps its shape: levels, sizes, docstrings."""

import ast
from pathlib import Path

import pytest

from medrobust.core.code import _file_of, named_modules

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
FILES = sorted((SRC / "medrobust").rglob("*.py"))
CODE = [*FILES, *sorted((ROOT / "stages").glob("*.py")), *sorted((ROOT / "tools").glob("*.py"))]
#: Part of the package -> level; a module imports only from its own level or below.
LEVELS = {
    "core": 0, "data": 1, "models": 1, "attacks": 2, "corruptions": 2, "training": 3, "detection": 3,
    "checklist": 3, "ensembling": 4, "explain": 4, "cases": 4, "patients": 3, "inference": 5, "report": 5,
    "external": 4, "export": 5, "app": 5, "cli": 6, "__main__": 6,
}  # fmt: skip


def part(path: Path) -> str:
    return path.relative_to(SRC / "medrobust").parts[0].removesuffix(".py")


def imports(path: Path) -> set[Path]:
    return {file for module in named_modules(path.read_text())[0] if (file := _file_of(module)) is not None}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_a_module_imports_only_from_its_own_or_a_lower_level(path: Path) -> None:
    if path == SRC / "medrobust" / "__init__.py":
        return  # the package's lazy face
    for imported in imports(path):
        assert LEVELS[part(imported)] <= LEVELS[part(path)], f"{path} imports {imported}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {path: imports(path) for path in FILES}

    def reaches(start: Path) -> set[Path]:
        seen: set[Path] = set()
        todo = list(graph[start])
        while todo:
            path = todo.pop()
            if path not in seen:
                seen.add(path)
                todo += graph[path]
        return seen

    assert [str(path) for path in FILES if path in reaches(path)] == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= (80 if path.parent.name == "stages" else 350)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_package_files_hold_a_docstring_of_one_line_and_nothing_else() -> None:
    inner = [path for path in FILES if path.name == "__init__.py" and path.parent.name != "medrobust"]
    assert {path.parent for path in inner} >= {path.parent for path in FILES} - {SRC / "medrobust"}
    for path in inner:
        text, tree = path.read_text(), ast.parse(path.read_text())
        assert text.count("\n") == len(tree.body) == 1, path
        assert ast.get_docstring(tree), path
