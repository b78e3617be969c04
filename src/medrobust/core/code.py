"""The source code that a stage runs, as one hash per file (docs/architecture.md, "Code as a dependency").

Imports under `if TYPE_CHECKING` do not count. A string that names a module (`medrobust.x.y` or
`medrobust.x.y:name`) counts as an import. A string that names a package adds the package's data files.
"""

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.records import read_json, write_json

PACKAGE = "medrobust"
SRC = Path(__file__).resolve().parents[2]
#: Analysed modules by the hash of their bytes: a cache that is always right and safe to delete.
CACHE = Path("tmp", "code.json")
#: Where the stage `code` writes; paths are relative to the folder of dvc.yaml, in which every stage runs.
CODE = Path("data", "code")
#: Kind of entry -> module and name of the registry, a dict of name -> "module:object" or of records with `target`.
REGISTRIES = {
    "attacks": ("medrobust.attacks.registry", "ATTACKS"),
    "objectives": ("medrobust.training.objectives.registry", "OBJECTIVES"),
    "detectors": ("medrobust.detection.registry", "DETECTORS"),
    "corruptions": ("medrobust.corruptions.registry", "CORRUPTIONS"),
    "sources": ("medrobust.data.sources.registry", "SOURCES"),
}
NAMED_MODULE = re.compile(rf"({PACKAGE}(?:\.\w+)+)(?::\w+)?")
#: Tokens that leave a line without code.
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Module:
    """Analysis of one source file; `named` are the modules and packages that string constants name."""

    code: str
    imports: tuple[str, ...]
    named: tuple[str, ...]


def stage_code(script: Path) -> str:
    """The file that the stage `code` writes for a script: one line `<hash> <path>` per file, sorted by path."""
    return _lines(_reached([script.resolve()]))


def modules_hash(modules: Iterable[str]) -> str:
    """sha256 of the code of modules, by dotted name, and of all that they import."""
    files = [file for name in modules if (file := _file_of(name)) is not None]
    return hashlib.sha256(_lines(_reached(files)).encode()).hexdigest()


def entry_hash(kind: str, name: str) -> str:
    """sha256 of an entry of `REGISTRIES[kind]`: its target, and the code of its module and imports.

    Raises:
        UserError: the module does not exist.
    """
    entry = _registry(kind)[name]
    target = str(getattr(entry, "target", entry))
    module = target.partition(":")[0]
    if _file_of(module) is None:
        found = f"{name!r} is registered, but there is no module {module}"
        remedy = "Create it; for a queued experiment also `git add` it, because DVC queues only what git tracks"
        raise UserError(REGISTRIES[kind][0], found, remedy)
    return hashlib.sha256(f"{target} {modules_hash([module])}".encode()).hexdigest()


def entry_hashes(kind: str, names: Iterable[str]) -> dict[str, str]:
    """`<kind>/<name>` -> hash of the named entries. Names that the registry lacks are left out."""
    return {f"{kind}/{name}": entry_hash(kind, name) for name in sorted({*names} & {*_registry(kind)})}


def chosen_entries(code: Mapping[str, str] | None, kind: str, names: Iterable[str]) -> dict[str, str]:
    """Those of the entries `<kind>/<name>` -> hash that are named; {} without hashes."""
    keys = sorted(f"{kind}/{name}" for name in names)
    return {key: code[key] for key in keys if code and key in code}


def read_entries(*paths: Path) -> dict[str, str]:
    """The hashes of registry entries in files that have them under `code`; {} for files that do not exist."""
    found: dict[str, str] = {}
    for path in paths:
        found |= read_json(path)["code"] if path.is_file() else {}
    return found


def check_code(script: Path, entries: Mapping[str, str]) -> None:
    """Refuse to go on where the code is not that of `data/code`.

    DVC stores a stage's result under the hashes that its dependencies had when the stage was started. Code that is
    edited after the stage `code` ran would leave its results under the hash of the earlier code, in dvc.lock and
    in the run cache. A script without a file in the folder was not started by DVC and is not checked. `entries`
    are the registry entries that the stage uses, with the hashes that it was given.

    Raises:
        UserError: a file of the stage's code has changed; the message names it.
    """
    path = CODE / script.stem
    if not path.is_file():
        return
    changed = _changed(path.read_text(encoding="utf-8"), stage_code(script))
    for key, known in entries.items():
        kind, _, name = key.partition("/")
        if entry_hashes(kind, [name]) != {key: known}:
            changed.append(key)
    if changed:
        found = f"its code has changed since the stage `code` ran: {', '.join(changed)}"
        raise UserError(str(script), found, "Run `dvc repro` again; it starts with the stage `code`")


def stripped(text: str) -> str:
    """Source code without comments, docstrings and lines that hold nothing else; the rest is kept to the letter.

    Positions come from the tokens and the syntax tree, so that every version of Python gives the same text.
    """
    lines = text.split("\n")
    occupied: set[int] = set()
    cuts: dict[int, int] = {}
    docstrings = set(map(_docstring, ast.walk(ast.parse(text))))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            cuts[token.start[0]] = token.start[1]
        elif token.type not in LAYOUT and token.start not in docstrings:
            occupied.update(range(token.start[0], token.end[0] + 1))
    rows = ((number, lines[number - 1]) for number in sorted(occupied) if number <= len(lines))
    return "\n".join(row[: cuts[number]].rstrip() if number in cuts else row for number, row in rows)


def named_modules(text: str) -> tuple[set[str], set[str]]:
    """Dotted names in the package: those that source code imports at run time, and those in string constants."""
    names: set[str] = set()
    strings: set[str] = set()
    for node in _runtime_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and (match := NAMED_MODULE.fullmatch(str(node.value))):
            strings.add(match[1])
    return {name for name in names if name.split(".")[0] == PACKAGE}, strings


def _docstring(node: ast.AST) -> tuple[int, int] | None:
    """Line and column at which the docstring of a module, class or function starts."""
    match node:
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if ast.get_docstring(node):
            return node.body[0].lineno, node.body[0].col_offset
    return None


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        todo += node.orelse if typing_only and isinstance(node, ast.If) else list(ast.iter_child_nodes(node))


def _registry(kind: str) -> Mapping[str, Any]:
    module, attribute = REGISTRIES[kind]
    return getattr(import_module(module), attribute)


def _file_of(module: str) -> Path | None:
    """The file of a module; None for a package and for a name inside a module."""
    path = SRC.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _data_of(package: str) -> list[Path]:
    folder = SRC.joinpath(*package.split("."))
    return [path for path in folder.glob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]


def _reached(start: Iterable[Path]) -> dict[Path, str]:
    """Every file that runs with the given ones -> hash of its code, or of its bytes where it holds data."""
    registries = {_file_of(module) for module, _ in REGISTRIES.values()}
    found: dict[Path, str] = {}
    todo = list(start)
    with _Analysis() as analysis:
        while todo:
            path = todo.pop()
            if path in found or path in registries:
                continue
            module = analysis.of(path)
            found[path] = module.code
            names = (*module.imports, *module.named)
            todo += [file for name in names if (file := _file_of(name)) is not None]
            for data in (file for name in module.named for file in _data_of(name)):
                found[data] = hashlib.sha256(data.read_bytes()).hexdigest()
    return found


def _lines(found: Mapping[Path, str]) -> str:
    top = SRC.parent
    rows = {
        (path.relative_to(top) if path.is_relative_to(top) else path).as_posix(): known
        for path, known in found.items()
    }
    return "".join(f"{known} {name}\n" for name, known in sorted(rows.items()))


def _changed(earlier: str, now: str) -> list[str]:
    """Paths whose line differs between two results of `stage_code`."""
    before, after = ({row.partition(" ")[2]: row for row in text.splitlines()} for text in (earlier, now))
    return sorted(name for name in before | after if before.get(name) != after.get(name))


class _Analysis:
    """Modules by the hash of their bytes, read from the cache and written back if something was added."""

    def __enter__(self) -> "_Analysis":
        self.known: dict[str, Any] = {}
        self.version = Path(__file__).read_bytes()
        if CACHE.is_file():
            try:
                self.known = json.loads(CACHE.read_text(encoding="utf-8"))
            except ValueError:
                self.known = {}
        self.size = len(self.known)
        return self

    def __exit__(self, *_: object) -> None:
        if len(self.known) != self.size:
            write_json(CACHE, self.known)

    def of(self, path: Path) -> Module:
        content = path.read_bytes()
        # An edit of this analysis makes every cached result invalid.
        key = hashlib.sha256(self.version + content).hexdigest()
        if key not in self.known:
            text = content.decode("utf-8")
            code = hashlib.sha256(stripped(text).encode()).hexdigest()
            self.known[key] = asdict(Module(code, *(tuple(sorted(names)) for names in named_modules(text))))
        return Module(**self.known[key])
