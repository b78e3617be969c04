"""What git says, and a refusal in one line."""

from pathlib import Path

import pytest

from medrobust.core.errors import UserError
from tests.tools.comment.pipeline import commit, run
from tools.git_calls import file_at, git


def test_a_file_of_a_commit_and_a_command_that_git_refuses(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    path.parent.mkdir()
    assert file_at("HEAD", path) is None, "there is no repository"
    run(tmp_path, "git", "init", "-q")
    path.write_text("first\n")
    commit(tmp_path)
    path.write_text("second\n")
    assert file_at("HEAD", path) == "first\n"
    assert file_at("HEAD", path.with_name("b.txt")) is None
    assert file_at("nowhere", path) is None
    assert git(tmp_path, "status", "--porcelain") == "M sub/a.txt"
    with pytest.raises(UserError, match=r"(?s)git diff: .*nowhere.* Run it in .* to see more"):
        git(tmp_path, "diff", "nowhere")
