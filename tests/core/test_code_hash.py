"""The hash follows imports inside the package and nothing else."""

import importlib
import sys
from pathlib import Path

import pytest

from medrobust.core.code_hash import code_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("import json\nfrom pack.b import VALUE\n")
    (folder / "b.py").write_text("VALUE = 1\n")
    (folder / "c.py").write_text("OTHER = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pack", raising=False)
    importlib.invalidate_caches()
    return folder


@pytest.mark.parametrize(("edited", "changes"), [("a.py", True), ("b.py", True), ("c.py", False)])
def test_an_edit_counts_where_the_module_leads(package: Path, edited: str, changes: bool) -> None:
    before = code_hash({"pack.a"}, within="pack")
    (package / edited).write_text((package / edited).read_text() + "# edited\n")
    assert (code_hash({"pack.a"}, within="pack") != before) == changes


def test_modules_of_other_packages_do_not_count(package: Path) -> None:
    assert code_hash({"pack.a", "json"}, within="pack") == code_hash({"pack.a"}, within="pack")
    assert code_hash({"pack.a"}, within="other") == code_hash(set(), within="pack")
