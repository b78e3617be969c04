"""What is read of the workflow's steps, the pipeline's log and the working tree."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.comment.verdict import BASE_OUTDATED, COMMITTED, NOT_COMMITTED, UNKNOWN, judge
from tools.comment.workflow_run import STEPS, WorkflowRun, changed_files, read_run

LOG = """Stage 'code' didn't change, skipping
Running stage 'train@net':
> python stages/train.py
Running stage 'attack@net-adv-pgd':
ERROR: failed to reproduce 'attack@net-adv-pgd': failed to run: python stages/attack.py
"""
OLD = {"train@a": "adv.eps has changed"}


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    for name in ("dvc.lock", "metrics/a.json", "plots/b.csv", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    commands = (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "a"])
    for command in commands:
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def steps(tests: str = "success", repro: str = "success", **outputs: str) -> str:
    found = {"mode": "full", "because": "", "not_pushed": "0", **outputs}
    return json.dumps(
        {"tests": {"outcome": tests, "outputs": {}}, "remote": {"outcome": "success", "outputs": found},
         "repro": {"outcome": repro, "outputs": {}}}
    )  # fmt: skip


def test_the_failed_step_and_stage_are_named_and_the_log_ends_the_comment(committed: Path) -> None:
    (committed / "repro.log").write_text(LOG)
    run = read_run(committed, steps(repro="failure"), committed / "repro.log", fork=False)
    assert run.failed == [STEPS["repro"]] == ["Reproduce what changed"]
    assert run.failed_stage == "attack@net-adv-pgd"
    assert run.ran == ["train@net", "attack@net-adv-pgd"]
    assert run.tail == LOG.splitlines()
    assert not run.reproduced


def test_steps_that_were_skipped_did_not_fail(committed: Path) -> None:
    run = read_run(committed, steps(tests="failure", repro="skipped"), committed / "none.log", fork=True)
    assert run.failed == ["Set up and test"]
    assert run.fork
    assert run.ran == run.tail == []


def test_outputs_of_the_remote_s_step_are_read(committed: Path) -> None:
    run = read_run(committed, steps(mode="smoke", because="no keys", not_pushed="3"), committed / "x", fork=False)
    assert (run.mode, run.because, run.not_pushed) == ("smoke", "no keys", 3)
    assert read_run(committed, "", committed / "x", fork=False) == WorkflowRun()


def test_changed_new_and_deleted_results_are_found_and_nothing_else(committed: Path) -> None:
    assert changed_files(committed) == []
    (committed / "README.md").write_text("2")
    (committed / "dvc.lock").write_text("2")
    (committed / "metrics" / "new.json").write_text("2")
    (committed / "plots" / "b.csv").unlink()
    assert sorted(changed_files(committed)) == ["dvc.lock", "metrics/new.json", "plots/b.csv"]
    whole = read_run(committed, steps(), committed / "x", fork=False)
    assert len(whole.differ) == 3
    smoke = read_run(committed, steps(mode="smoke"), committed / "x", fork=False)
    assert smoke.differ == [], "the smoke preset changes every result"


WHOLE, SMOKE = WorkflowRun(mode="full", differ=["dvc.lock"]), WorkflowRun(mode="smoke")


@pytest.mark.parametrize(
    ("run", "this", "base", "touched", "word"),
    [
        (WorkflowRun(mode="full"), OLD, OLD, True, COMMITTED),  # the run knows more than the comparison of hashes
        (WHOLE, OLD, {}, True, NOT_COMMITTED),
        (WHOLE, OLD, OLD, False, BASE_OUTDATED),  # a pull request that touches only README
        (WHOLE, OLD, OLD, True, NOT_COMMITTED),
        (WHOLE, {}, None, False, BASE_OUTDATED),
        (SMOKE, {}, {}, True, COMMITTED),
        (SMOKE, OLD, {}, True, NOT_COMMITTED),
        (SMOKE, OLD, OLD, False, BASE_OUTDATED),
        (SMOKE, None, {}, True, UNKNOWN),
        (WorkflowRun(mode="full", failed=["x"]), {}, {}, True, COMMITTED),
        (WorkflowRun(mode="full", failed=["x"]), OLD, {}, True, NOT_COMMITTED),
    ],
)
def test_who_has_to_act(
    run: WorkflowRun, this: dict[str, str] | None, base: dict[str, str] | None, touched: bool, word: str
) -> None:
    verdict = judge(run, this, base, touched=touched)
    assert verdict.word == word
    outdated = word in {NOT_COMMITTED, BASE_OUTDATED}
    assert verdict.stages == ((this or {}) if outdated else {}), "no stage is called outdated beside good results"


def test_the_ids_of_steps_are_those_of_the_workflow(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github" / "workflows" / "pull-request.yml").read_text())
    named = {step.get("id"): step["name"] for step in workflow["jobs"]["results"]["steps"] if step.get("id")}
    assert {key: named[key] for key in STEPS} == STEPS
