"""Clones of the working tree in which the pipeline runs; one run of the smoke preset serves all test modules."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medrobust.core.runtime import file_lock
from tests.checkout import copy_checkout
from tests.warm_python import warm_python
from tools.preset import render

#: Who commits in a clone, in the environment of git.
IDENTITY = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def run(folder: Path, *command: str, **environment: str) -> str:
    """The output of a command in a clone, with this environment's programs and the clone's own source."""
    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if command[0] in {"dvc", "bash"}:  # may run stages
        programs.insert(0, warm_python())
    variables = {
        **os.environ,
        **IDENTITY,
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": str(folder / "src"),
        **environment,
    }
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def clone(folder: Path, params: str) -> None:
    """A clone of the working tree with other parameters, in which nothing has run."""
    copy_checkout(folder)
    (folder / "params.yaml").write_text(params)
    run(folder, sys.executable, "-m", "tools.artifacts")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    commit(folder, "clone")


def commit(folder: Path, message: str) -> None:
    """Commit all files."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def repro(folder: Path, *targets: str) -> set[str]:
    """Run the pipeline, or what leads to some stages; the names of the stages that ran."""
    lines = run(folder, "dvc", "repro", *targets).splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


def smoke_run(factory: pytest.TempPathFactory, folder: Path) -> None:
    """Copy a clone in which the smoke preset has run, with DVC's cache and its results not committed.

    The first module that asks for it makes the run. Processes of pytest-xdist share it and wait for it.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke-run"
    with file_lock(shared.with_suffix(".lock"), str(os.getpid()), "waiting for the run of process {holder}"):
        if not (shared / "done").exists():
            shutil.rmtree(shared, ignore_errors=True)
            clone(shared / "clone", render("smoke"))
            run(shared / "clone", "dvc", "repro", "--quiet")
            (shared / "done").touch()
        shutil.copytree(shared / "clone", folder, symlinks=True)
