"""Signals end a stage as an exception does, and a stage ends with the processes that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medrobust.core.disk import is_alive
from medrobust.core.ending import PARENTS, early_end

#: Tests that run in the background, or under nohup, hand on that these signals are ignored.
HEEDED = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
STAGE = """
import time
from pathlib import Path
from medrobust.core.records import atomic_file
from medrobust.core.runtime import run_stage
def main():
    with atomic_file("out.txt") as temporary:
        temporary.write_text("half")
        Path("started").write_text(str(__import__("os").getpid()))
        time.sleep(60)
run_stage(main, "cell")
"""


def wait_for(path: Path) -> str:
    """The text of a file, as soon as it is there."""
    for _ in range(600):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def has_ended(process: int, seconds: float = 10) -> bool:
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_stage_in_one_line_and_its_write_leaves_nothing(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDED + STAGE], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "started")
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert told == f"ended by {signal.Signals(number).name}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"started", "tmp"}


def test_nohup_keeps_a_stage_alive(tmp_path: Path) -> None:
    process = subprocess.Popen(["nohup", sys.executable, "-c", STAGE], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "started")
    process.send_signal(signal.SIGHUP)
    assert not has_ended(process.pid, 1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path, shell: str) -> None:
    """DVC starts `SHELL -c COMMAND`, and the shell becomes the command."""
    (tmp_path / "stage.py").write_text(STAGE)
    start = f"import subprocess; subprocess.run(['{shell}', '-c', '{sys.executable} stage.py'])"
    environment = {**os.environ, "DVC_STAGE": "cell"}
    dvc = subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path, env=environment)
    stage = int(wait_for(tmp_path / "started"))
    dvc.kill()
    dvc.wait()
    assert has_ended(stage)
    assert {path.name for path in tmp_path.iterdir()} == {"started", "stage.py", "tmp"}


def test_a_stage_ends_with_the_command_above_dvc(tmp_path: Path) -> None:
    repro = subprocess.Popen(["sleep", "60"])
    environment = {**os.environ, PARENTS: f"{os.getpid()}:{repro.pid}"}
    stage = subprocess.Popen([sys.executable, "-c", STAGE], cwd=tmp_path, env=environment)
    wait_for(tmp_path / "started")
    repro.kill()
    repro.wait()
    assert stage.wait(10) == 128 + signal.SIGTERM


def test_a_stage_started_by_hand_outlives_its_shell(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    environment = {name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "RANK", PARENTS)}
    command = f"{sys.executable} stage.py & while [ ! -e started ]; do sleep 0.1; done"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=60)
    stage = int(wait_for(tmp_path / "started"))
    assert not has_ended(stage, 1.5)
    os.kill(stage, signal.SIGTERM)
    assert has_ended(stage)


def test_a_stage_leaves_the_handlers_of_its_process_as_they_were() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with early_end():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before


PARALLEL = """
import os, time
from pathlib import Path
from medrobust.core.runtime import run_stage
def main():
    Path(f"rank{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(120)
run_stage(main, "cell", parallel=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_of_torchrun_end_with_their_stage(tmp_path: Path, number: int) -> None:
    (tmp_path / "stage.py").write_text(PARALLEL)
    environment = {**os.environ, "MEDROBUST_TORCHRUN": "--standalone --nproc-per-node=2"}
    stage = subprocess.Popen(
        [sys.executable, "stage.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    ranks = [int(wait_for(tmp_path / f"rank{rank}")) for rank in range(2)]
    stage.send_signal(number)
    stage.wait(30)
    assert all(has_ended(rank, 15) for rank in ranks)
