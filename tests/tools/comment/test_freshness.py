"""Outdated results of a commit are found without DVC's data; its working tree is not touched."""

import subprocess
from pathlib import Path

from tests.tools.comment.pipeline import commit, run
from tools.comment.freshness import checkout, outdated, touches_results


def found(repository: Path) -> dict[str, str] | None:
    with checkout(repository, "HEAD") as folder:
        return outdated(folder)


def test_results_that_belong_to_params_and_code(repository: Path) -> None:
    assert found(repository) == {}
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_a_changed_param_and_changed_code_with_what_follows(repository: Path) -> None:
    (repository / "params.yaml").write_text("a: 2\n")
    assert found(repository) == {}, "only what is committed counts"
    commit(repository)
    assert found(repository) == dict.fromkeys(
        ("made", "after"), "a in params.yaml has changed since stage made ran"
    )
    run(repository, "git", "revert", "--no-edit", "HEAD")
    (repository / "source").write_text("[]")
    commit(repository)
    assert found(repository) == dict.fromkeys(("made", "after"), "stage made ran on an earlier code")


def test_metrics_that_were_not_committed_with_the_lock(repository: Path) -> None:
    (repository / "metric.json").write_text('{"b": 1}')
    commit(repository)
    assert found(repository) == {"made": "metric.json is not what it wrote"}
    (repository / "metric.json").unlink()
    commit(repository)
    assert found(repository) == {"made": "metric.json is not what it wrote"}


def test_nothing_is_said_without_a_lock_or_if_the_code_cannot_be_hashed(repository: Path) -> None:
    (repository / "source").unlink()
    commit(repository)
    assert found(repository) is None
    (repository / "dvc.lock").unlink()
    commit(repository)
    assert found(repository) is None


def test_only_what_decides_results_touches_them(repository: Path) -> None:
    (repository / "README.md").write_text("words")
    commit(repository)
    assert not touches_results(repository, "HEAD~1", "HEAD")
    (repository / "params.yaml").write_text("a: 3\n")
    commit(repository)
    assert touches_results(repository, "HEAD~1", "HEAD")
