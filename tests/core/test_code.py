"""What counts as the code of a stage, and what a stage says of code that has changed under it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medrobust.core import code
from medrobust.core.code import REGISTRIES, chosen_entries, entry_hash, named_modules, stage_code, stripped
from medrobust.core.errors import UserError
from medrobust.core.records import write_json

ROOT = Path(__file__).resolve().parents[2]
STAGES = sorted((ROOT / "stages").glob("*.py"))

TEXT = '''"""Module."""
import os  # a comment


class A:
    """Class."""

    text = """kept

    # kept too
    """

    def f(self):
        """Method."""
        # a comment alone
        return "# no comment"  # one


def g():
    """Only a docstring."""
'''
STRIPPED = '''import os
class A:
    text = """kept

    # kept too
    """
    def f(self):
        return "# no comment"
def g():'''


def test_comments_docstrings_and_blank_lines_are_no_code() -> None:
    assert stripped(TEXT) == STRIPPED


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (lambda text: text + "\n# another line\n", False),
        (lambda text: text.replace('"""Method."""', '"""Another\n\n        docstring."""'), False),
        (lambda text: text.replace("import os", "\n\nimport os"), False),
        (lambda text: text.replace("# no comment", "# another text"), True),
        (lambda text: text.replace("kept\n\n", "kept\n\n\n"), True),
        (lambda text: text + "x = 1\n", True),
    ],
)
def test_only_code_changes_the_hash(edit: Callable[[str], str], changes: bool) -> None:
    assert edit(TEXT) != TEXT
    assert (stripped(edit(TEXT)) != stripped(TEXT)) == changes


def test_every_python_gives_the_same_text_for_the_whole_package() -> None:
    """What is cut depends on positions alone; the rest is the file to the letter."""
    for path in (ROOT / "src").rglob("*.py"):
        rows = path.read_text().split("\n")
        kept = stripped(path.read_text()).split("\n")
        left = iter(rows)
        assert all(any(row == line or row.startswith(line) for row in left) for line in kept), path


def test_imports_inside_functions_and_named_modules_count_those_of_types_do_not() -> None:
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from medrobust import c
else:
    from medrobust import d
def f():
    import medrobust.a
KNOWN = {"x": "medrobust.b.module:Name"}
import torch
"""
    assert named_modules(text) == ({"medrobust", "medrobust.a", "medrobust.d"}, {"medrobust.b.module"})


def files_of(script: str) -> set[str]:
    return {line.split(" ")[1] for line in stage_code(ROOT / "stages" / f"{script}.py").splitlines()}


def test_a_stage_lists_its_script_and_what_it_imports() -> None:
    assert {"stages/split.py", "src/medrobust/data/split.py", "src/medrobust/core/records.py"} <= files_of("split")
    assert "src/medrobust/data/split.py" not in files_of("attack")


def test_data_files_of_the_package_are_code() -> None:
    """Each belongs to some stage, or to an entry of a registry (a source of data); no stage runs app or export."""
    found = {name for script in STAGES for name in files_of(script.stem)}
    for module, attribute in REGISTRIES.values():
        for entry in getattr(__import__(module, fromlist=[attribute]), attribute).values():
            path = code._file_of(str(getattr(entry, "target", entry)).partition(":")[0])
            assert path is not None
            found |= {line.split(" ")[1] for line in stage_code(path).splitlines()}
    data = {path for path in (ROOT / "src" / "medrobust").rglob("*") if path.is_file() and path.suffix != ".py"}
    names = {
        path.relative_to(ROOT).as_posix() for path in data if not {"__pycache__", "app", "export"} & {*path.parts}
    }
    assert names - {"src/medrobust/py.typed"} <= found
    assert len(names) > 4


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_registry_holds_names_and_nothing_else(kind: str) -> None:
    """Its file is in no stage's code: so whatever it held beside its names could change unseen."""
    import ast

    module, attribute = REGISTRIES[kind]
    path = code._file_of(module)
    assert path is not None
    tree = ast.parse(path.read_text())
    allowed = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign)
    assert all(isinstance(node, allowed) for node in tree.body), path
    assert not [script for script in STAGES if path.relative_to(ROOT).as_posix() in files_of(script.stem)]
    for name in getattr(__import__(module, fromlist=[attribute]), attribute):
        assert len(entry_hash(kind, name)) == 64


@pytest.mark.parametrize("kind", REGISTRIES)
def test_an_entry_without_its_file_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a queued experiment, whose copy of the workspace has the registry, but no file that is new to git."""
    registry = code._registry(kind)
    monkeypatch.setitem(registry, "new", "medrobust.attacks.methods.new:New")
    message = r"registry: 'new' is registered, but there is no module medrobust\.attacks\.methods\.new\. .*git add"
    with pytest.raises(UserError, match=message):
        code.entry_hashes(kind, ["new"])


def test_entries_in_use_are_chosen_by_name() -> None:
    known = {"attacks/pgd": "a", "attacks/fgsm": "b", "detectors/pgd": "c"}
    assert chosen_entries(known, "attacks", ["pgd", "new"]) == {"attacks/pgd": "a"}
    assert chosen_entries(None, "attacks", ["pgd"]) == {}


STAGE = """
from pathlib import Path
from medrobust.core.runtime import run_stage, say
def main():
    from medrobust.attacks.methods import iterative
    if Path("edit").exists():
        source = Path("src/medrobust/attacks/methods/iterative.py")
        source.write_text(source.read_text() + "\\nADDED = 1\\n")
    Path("out").write_text("done")
if __name__ == "__main__":
    from medrobust.core.code import read_entries
    run_stage(main, "stage", entries=read_entries(Path("data/code/attacks.json")))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the sources with one stage, for which the stage `code` has run."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "stage.py").write_text(STAGE)
    (tmp_path / "data" / "code").mkdir(parents=True)
    python(
        tmp_path, "-c",
        "from pathlib import Path; from medrobust.core.code import *;"
        "Path('data/code/stage').write_text(stage_code(Path('stages/stage.py')));"
        "write_json('data/code/attacks.json', {'code': entry_hashes('attacks', ['apgd'])})",
    )  # fmt: skip
    return tmp_path


def python(folder: Path, *command: str) -> str:
    """Run Python in a workspace; its output, and an error's message behind the exit code."""
    import os

    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return f"{done.returncode} {done.stderr.strip()}"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_stage_runs_on_the_code_that_was_hashed(workspace: Path) -> None:
    assert python(workspace, "stages/stage.py") == "0 "
    append(workspace / "src" / "medrobust" / "attacks" / "methods" / "iterative.py", "\n# a comment\n")
    append(workspace / "src" / "medrobust" / "report" / "collect.py", "\nADDED = 1\n")
    assert python(workspace, "stages/stage.py") == "0 "


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        ("attacks/methods/iterative.py", "src/medrobust/attacks/methods/iterative.py"),
        ("attacks/methods/apgd.py", "attacks/apgd"),
    ],
)
def test_code_that_changed_after_it_was_hashed_ends_the_stage_before_it_starts(
    workspace: Path, edited: str, named: str
) -> None:
    append(workspace / "src" / "medrobust" / edited, "\nADDED = 1\n")
    found = python(workspace, "stages/stage.py")
    assert found.startswith("1 stage: stages/stage.py: its code has changed since the stage `code` ran:")
    assert named in found
    assert "Run `dvc repro` again" in found
    assert "Traceback" not in found
    assert not (workspace / "out").exists()


def test_code_that_changes_while_a_stage_runs_ends_it_with_an_error(workspace: Path) -> None:
    (workspace / "edit").touch()
    found = python(workspace, "stages/stage.py")
    assert found.startswith("1 stage: stages/stage.py: its code has changed")
    assert "methods/iterative.py" in found


def test_without_hashes_a_script_runs_by_hand(workspace: Path) -> None:
    shutil.rmtree(workspace / "data" / "code")
    append(workspace / "src" / "medrobust" / "attacks" / "methods" / "iterative.py", "\nADDED = 1\n")
    assert python(workspace, "stages/stage.py") == "0 "


def test_an_entry_that_left_its_registry_has_changed(workspace: Path) -> None:
    write_json(workspace / "data" / "code" / "attacks.json", {"code": {"attacks/gone": "a"}})
    found = python(workspace, "stages/stage.py")
    assert "its code has changed since the stage `code` ran: attacks/gone" in found


def test_paths_are_the_same_through_a_link_to_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT)
    assert stage_code(tmp_path / "link" / "stages" / "split.py") == stage_code(ROOT / "stages" / "split.py")
