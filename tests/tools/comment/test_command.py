"""The command that the workflow runs: the comment in a file, the verdict among the outputs of its step."""

import json
from pathlib import Path

import pytest

from tests.tools.comment.pipeline import commit, run
from tools.comment.__main__ import changed_metrics, main

SMOKE = json.dumps({"remote": {"outcome": "success", "outputs": {"mode": "smoke", "because": "no remote"}}})


def comment(folder: Path, monkeypatch: pytest.MonkeyPatch, base: str, steps: str = SMOKE) -> tuple[str, str]:
    """Run the command in a repository; the comment, and what it adds to the outputs."""
    output = folder.parent / "output.txt"
    output.unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setattr("sys.argv", ["comment", "--base", base, "--steps", steps, "--output", "../comment.md"])
    main()
    return (folder.parent / "comment.md").read_text(), output.read_text()


def test_committed_missing_and_inherited_results(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(repository, "git", "branch", "base")
    (repository / "params.yaml").write_text("a: 2\n")
    commit(repository)
    text, output = comment(repository, monkeypatch, "base")
    assert "## Results not committed" in text
    assert "- a: 1 -&gt; 2" in text
    assert "outdated stages: 2 (a in params.yaml has changed since stage made ran)" in text
    assert output == "results=not-committed\n"

    run(repository, "git", "branch", "-f", "base")
    (repository / "README.md").write_text("words")
    commit(repository)
    text, output = comment(repository, monkeypatch, "base")
    assert "**Outdated on base, not by this pull request:** outdated stages: 2" in text
    assert "**Params:** unchanged" in text
    assert output == "results=base-outdated\n"

    run(repository, "dvc", "repro")
    full = SMOKE.replace("smoke", "full")
    assert "the run changed dvc.lock" in comment(repository, monkeypatch, "base", full)[0]
    commit(repository)
    text, output = comment(repository, monkeypatch, "base", full)
    assert "dvc.lock, metrics and plots are those that the pipeline gives" in text
    assert output == "results=committed\n"

    (repository / "dvc.lock").unlink()
    commit(repository)
    text, output = comment(repository, monkeypatch, "base")
    assert "## No committed results" in text
    assert output == "results=none\n"


def test_metrics_of_two_commits_and_of_the_working_tree(repository: Path) -> None:
    (repository / "source").write_text('{"b": 1}')
    run(repository, "dvc", "repro")
    change = {"metric.json": {"b": {"old": None, "new": 1}}}
    assert changed_metrics(repository, "HEAD") == change
    commit(repository)
    assert changed_metrics(repository, "HEAD") == {}
    assert changed_metrics(repository, "HEAD~1", "HEAD") == change
    assert changed_metrics(repository, "no-such-branch", "HEAD") == {}
