"""The page says which code made it, and what of it no commit has."""

import subprocess
from pathlib import Path

import pytest

from medrobust.report.provenance.commit import NAMED, Commit, built_on


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("params.yaml", "dvc.lock", "metrics/a.json", "src/a b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "first")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_what_the_pipeline_writes_is_no_change(repository: Path) -> None:
    (repository / "dvc.lock").write_text("2")
    (repository / "metrics" / "a.json").unlink()
    found = built_on(repository, ["metrics/a.json", Path("data/raw")])
    assert found == Commit(git(repository, "rev-parse", "HEAD"), git(repository, "log", "-1", "--format=%cs"), ())
    assert found.words() == f"Made by the code and params of commit {found.sha} ({found.day})."


def test_changed_and_new_files_are_named(repository: Path) -> None:
    (repository / "params.yaml").write_text("2")
    (repository / "src" / "a b.py").rename(repository / "src" / "ü.py")
    found = built_on(repository, [])
    assert found is not None
    assert found.changed == ("params.yaml", "src/a b.py", "src/ü.py")
    assert found.words().endswith(", with changes in params.yaml, src/a b.py, src/ü.py.")


def test_of_many_changes_a_few_are_named() -> None:
    names = tuple(f"{number}.py" for number in range(NAMED + 2))
    assert Commit("a", "2026-01-01", names).words().endswith("4.py, 2 more.")


def test_outside_of_a_repository_and_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert built_on(tmp_path, []) is None
    (tmp_path / ".git").unlink()
    git(tmp_path, "init", "--quiet")
    assert built_on(tmp_path, []) is None


def test_a_folder_of_another_repository_has_no_commit_of_its_own(repository: Path) -> None:
    assert built_on(repository / "src", []) is None


def test_changes_that_git_does_not_tell_are_not_taken_for_none(repository: Path) -> None:
    (repository / ".git" / "index").write_bytes(b"damaged")
    assert built_on(repository, []) is None


def test_without_the_program_there_is_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert built_on(repository, []) is None
