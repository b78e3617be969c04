"""Two people and a workflow, as docs/team.md tells it: run, push, pull, change, pull request, merge."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from tests.checkout import ROOT
from tests.clones import commit, repro, run, smoke_run

pytestmark = pytest.mark.slow


class Team(NamedTuple):
    """Clones of two people; both know the same repository and a folder as DVC's remote."""

    ann: Path
    ben: Path
    origin: Path


def change(folder: Path, key: str, value: object) -> None:
    """Set a value of params.yaml, as `-S` does."""
    apply_overrides(folder / "params.yaml", [f"{key}={value}"])


def clone(origin: Path, folder: Path) -> Path:
    """A clone with what `make setup` sets."""
    run(origin, "git", "clone", "--quiet", str(origin), str(folder))
    run(folder, "git", "config", "merge.ours.driver", "true")
    return folder


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Ann has run the smoke preset on main and pushed it; Ben has cloned it."""
    top = tmp_path_factory.mktemp("team")
    origin, ann, store = top / "origin.git", top / "ann", top / "store"
    for folder in (origin, store):
        folder.mkdir()
    run(origin, "git", "init", "--quiet", "--bare", "--initial-branch", "main")
    smoke_run(tmp_path_factory, ann)
    run(ann, "git", "config", "merge.ours.driver", "true")
    run(ann, "git", "remote", "add", "origin", str(origin))
    run(ann, "dvc", "remote", "add", "--default", "store", str(store))
    publish(ann, "first run", "main")
    return Team(ann, clone(origin, top / "ben"), origin)


def publish(folder: Path, message: str, branch: str) -> None:
    """Commit results, push them to both."""
    commit(folder, message)
    run(folder, "dvc", "push")
    run(folder, "git", "push", "--quiet", "--set-upstream", "origin", branch)


def workflow(team: Team, branch: str) -> tuple[str, str]:
    """What the workflow does for a pull request of a branch, from its own steps: log, and comment with outputs.

    The smoke preset is not run: other tests do.
    """
    folder = clone(team.origin, team.origin.parent / f"of-{branch}")
    run(folder, "git", "switch", "--quiet", branch)
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "pull-request.yml").read_text())
    scripts = {step.get("id"): step.get("run", "") for step in steps["jobs"]["results"]["steps"]}
    work = folder.parent / f"work-{branch}"
    work.mkdir()
    output, log = work / "output.txt", work / "repro.log"
    variables = {
        "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": os.devnull, "RUNNER_TEMP": str(work), "BASE": "main",
        "FORK": "false", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    bash = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
    (folder / ".venv" / "bin").mkdir(parents=True)  # the scripts put it before PATH
    run(folder, *bash, scripts["remote"], **variables)
    found = dict(line.split("=", 1) for line in output.read_text().splitlines())
    log.write_text(f"{found['mode']}\n")
    if found["mode"] == "full":
        run(folder, *bash, scripts["repro"], **variables, MODE="full")
    context = {key: {"outcome": "success", "outputs": {}} for key in ("tests", "repro")}
    context["remote"] = {"outcome": "success", "outputs": found}
    run(folder, *bash, scripts["comment"], **variables, STEPS=json.dumps(context))
    return log.read_text(), (folder / "comment.md").read_text() + output.read_text()


def test_two_people_share_change_and_merge(team: Team) -> None:
    ann, ben = team.ann, team.ben
    run(ben, "dvc", "pull")
    assert repro(ben) == set(), "a colleague who has pulled computes nothing"
    assert run(ben, "git", "status", "--porcelain") == ""

    # Both change something that the other's change does not touch; Ann is merged first.
    run(ben, "git", "switch", "--quiet", "--create", "larger-top")
    change(ben, "explain.top", 0.3)
    assert repro(ben) == {"explain@resnet10t", "report"}
    publish(ben, "explain.top 0.3", "larger-top")
    change(ann, "transfer.images", 6)
    # Fewer than six patients are in test, so that the tables of attacked patients stay the same.
    attacked = {"transfer_patient@resnet10t-clean", "transfer_patient@resnet10t-adv"}
    again = {"transfer", *attacked, "report"}
    assert repro(ann) == again
    publish(ann, "transfer.images 6", "main")

    run(ben, "git", "fetch", "--quiet")
    run(ben, "git", "merge", "--quiet", "--no-edit", "origin/main")
    assert "<<<<<<<" not in (ben / "dvc.lock").read_text()
    status = json.loads(run(ben, "dvc", "status", "--json"))
    assert {"transfer", "report"} <= set(status)
    assert repro(ben) == again, "only what Ann changed, and what stands on both"
    publish(ben, "results of the merge", "larger-top")

    log, comment = workflow(team, "larger-top")
    assert "Running stage" not in log
    head = comment.partition("\n<details>")[0]
    assert "## No headline measure changed" in head
    assert "- **Run:** passed; no stage had to run." in head
    assert "dvc.lock, metrics and plots are those that the pipeline gives" in head
    assert "- explain.top: 0.2 -&gt; 0.3\n" in head
    assert "transfer" not in head, "what Ann changed is on main"
    assert "metrics/explain/resnet10t-adv.json" in comment
    assert comment.endswith("results=committed\n")


def test_results_that_are_missing_on_main_are_not_blamed_on_a_readme(team: Team) -> None:
    ann = team.ann
    change(ann, "report.title", "something")
    commit(ann, "merged without results")
    run(ann, "git", "push", "--quiet", "origin", "main")
    run(ann, "git", "switch", "--quiet", "--create", "readme")
    (ann / "README.md").write_text("other words")
    commit(ann, "README")
    run(ann, "git", "push", "--quiet", "origin", "readme")
    log, comment = workflow(team, "readme")
    assert "Running stage 'report'" in log
    assert "**Outdated on main, not by this pull request:** the run changed dvc.lock" in comment
    assert "## No headline measure changed" in comment
    assert comment.endswith("results=base-outdated\n")

    # A change of one's own without results, where the workflow cannot reach the remote.
    run(ann, "git", "switch", "--quiet", "--create", "own", "main")
    change(ann, "explain.top", 0.4)
    commit(ann, "changed without results")
    run(ann, "git", "push", "--quiet", "origin", "own")
    (team.origin.parent / "store").rename(team.origin.parent / "elsewhere")
    log, comment = workflow(team, "own")
    assert log == "smoke\n"
    assert "## Results not committed\n" in comment
    assert "which does not exist here" in comment
    assert "explain in params.yaml has changed since stage explain@resnet10t ran" in comment
    assert "**Outdated on main already:** 1 stage" in comment
    assert comment.endswith("results=not-committed\n")
