"""The workflows: what they may do, what they name, and that actions cannot change under their name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PULL_REQUEST, REPRODUCE = (
    ROOT / ".github" / "workflows" / f"{name}.yml" for name in ("pull-request", "reproduce")
)


def steps(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]["results"]["steps"]
    return found


def commands(path: Path) -> str:
    return "\n".join(step.get("run", "") for step in steps(path))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_their_tag_as_a_comment(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for name in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", name), name


def test_one_action_has_one_commit() -> None:
    used = {name for path in WORKFLOWS for name in re.findall(r"uses: (.+)", path.read_text())}
    assert len(used) == len({name.partition("@")[0] for name in used})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_and_targets_exist_and_steps_are_whole(path: Path) -> None:
    text = path.read_text()
    modules = set(re.findall(r"python -m (tools(?:\.\w+)+)", text))
    assert modules
    for module in modules:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([\w-]+)", commands(path))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for step in steps(path):
        assert ("uses" in step) != ("run" in step)
        # A value of GitHub's in a script would be code; as a variable it is text.
        assert "${{" not in step.get("run", ""), step["name"]


def test_code_of_a_fork_meets_no_secret_and_the_token_is_not_kept() -> None:
    text = PULL_REQUEST.read_text()
    assert yaml.safe_load(text)["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "pull_request_target" not in text
    for path in WORKFLOWS:
        assert steps(path)[0]["with"]["persist-credentials"] is False
    posting = next(step for step in steps(PULL_REQUEST) if step.get("name", "").startswith("Post"))
    assert "env.FORK == 'false'" in posting["if"]


def test_the_mark_of_the_comment_is_the_one_that_is_searched_for() -> None:
    template = (ROOT / "tools" / "comment" / "comment.md.jinja").read_text()
    marks = set(re.findall(r"<!-- .+? -->", PULL_REQUEST.read_text() + template))
    assert marks == {"<!-- medrobust-results -->"}


def test_the_job_fails_for_uncommitted_results_only_by_choice() -> None:
    last = steps(PULL_REQUEST)[-1]
    assert "vars.UNCOMMITTED_RESULTS == 'fail'" in last["if"]
    assert "steps.comment.outputs.results == 'not-committed'" in last["if"]
    assert "exit 1" in last["run"]


def test_main_is_reproduced_only_by_choice() -> None:
    job = yaml.safe_load(REPRODUCE.read_text())["jobs"]["results"]
    assert job["if"] == "vars.REPRODUCE_MAIN == 'commit' || vars.REPRODUCE_MAIN == 'pull-request'"
    names = [step.get("name") for step in job["steps"]]
    assert names.index("Stop if there is no remote") < names.index("Reproduce and push")


def test_results_are_merged_by_taking_one_side() -> None:
    rules = dict(line.split() for line in (ROOT / ".gitattributes").read_text().splitlines() if line[:1] != "#")
    assert rules == {"dvc.lock": "merge=ours", "metrics/**": "merge=ours", "plots/**": "merge=ours"}
    assert "git config merge.ours.driver true" in (ROOT / "Makefile").read_text()
