"""Two runs in one folder wait for each other, and nothing outlives the run that started it."""

import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency import param
from dvc.repo import Repo

from medrobust.core.disk import is_alive
from tests.tools import toy
from tools.dvc_calls import params_read_once

pytestmark = pytest.mark.slow
REPRO = (sys.executable, "-m", "tools.repro")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository whose first stage waits until `hold` is deleted."""
    toy.make(tmp_path / "repo", ["one"])
    (tmp_path / "repo" / "hold").touch()
    return tmp_path / "repo"


def wait_for_stage(folder: Path) -> int:
    """The process of the stage that waits."""
    path = folder / "tmp" / "started"
    for _ in range(1200):
        if path.exists() and (text := path.read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the stage never started")


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The first line with a word that a process prints."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return line
    raise AssertionError("".join(lines))


def test_a_second_run_waits_for_the_first_and_names_it(repo: Path) -> None:
    first = toy.start(repo, *REPRO)
    wait_for_stage(repo)
    second = toy.start(repo, *REPRO)
    line = read_until(second, "waiting")
    assert line.startswith(f"process {first.pid}, started at ")
    assert "runs the pipeline of this folder; waiting for it to end" in line
    (repo / "hold").unlink()
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "download" in toy.ran(outputs[0])
    assert toy.ran(outputs[1]) == set()


def test_a_run_waits_for_a_plain_dvc_and_names_it(repo: Path) -> None:
    plain = toy.start(repo, "dvc", "repro")
    wait_for_stage(repo)
    beside = toy.start(repo, *REPRO)
    line = read_until(beside, "waiting for it")
    assert line.startswith("another DVC process is at work; waiting for it: ")
    assert f"(PID {plain.pid})" in line
    (repo / "hold").unlink()
    outputs = [process.communicate(timeout=120)[0] for process in (plain, beside)]
    assert (plain.returncode, beside.returncode) == (0, 0), outputs
    assert "Traceback" not in "".join(outputs)
    assert outputs[1].endswith("Data and pipelines are up to date.\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stages_end_with_the_run_and_the_next_one_does_the_rest(repo: Path, number: signal.Signals) -> None:
    killed = toy.start(repo, *REPRO)
    stage = wait_for_stage(repo)
    killed.send_signal(number)
    killed.wait(30)
    end = time.monotonic() + 15
    while is_alive(stage) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(stage), "it could write over what the next run writes"
    (repo / "hold").unlink()
    told = toy.repro(repo)
    assert "download" in toy.ran(told)
    assert told.endswith("Data and pipelines are up to date.\n")
    assert not [*repo.rglob(".*.tmp")]


@pytest.mark.parametrize("left", ["", '{"write": {'])
def test_a_list_of_files_in_use_that_a_kill_cut_off_is_removed(left: str, repo: Path) -> None:
    (repo / "hold").unlink()
    in_use = repo / ".dvc" / "tmp" / "rwlock"
    in_use.parent.mkdir(parents=True, exist_ok=True)
    in_use.write_text(left)
    told = toy.repro(repo)
    assert told.startswith("removed .dvc/tmp/rwlock, which a killed DVC process left unreadable\n")
    assert told.endswith("Data and pipelines are up to date.\n")
    assert "removed" not in toy.repro(repo)


def test_params_are_parsed_once_while_the_status_of_all_stages_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = "stages:\n" + "".join(f"  {name}: {{cmd: 'true', params: [{name}]}}\n" for name in "ab")
    (tmp_path / "dvc.yaml").write_text(stages)
    (tmp_path / "params.yaml").write_text("{a: 1, b: 1}\n")
    for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        subprocess.run(["dvc", *command], env=toy.ENVIRONMENT, check=True)
    (tmp_path / "params.yaml").write_text("{a: 1, b: 2}\n")
    load, read = param.load_path, list[str]()

    def counted(path: str, *args: Any) -> Any:
        read.append(path)
        return load(path, *args)

    monkeypatch.setattr(param, "load_path", counted)
    found = []
    for context in (nullcontext, params_read_once):
        read.clear()
        with Repo() as repo, context():
            found.append((repo.status(), len(read)))
    (each, many), (once, few) = found
    assert each == once
    assert [*each] == ["b"]
    assert (many, few) == (2, 1)
    assert not hasattr(param.load_path, "cache_info"), "put back"
