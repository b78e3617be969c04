"""Calls of DVC that wait while another DVC process is at work in the same folder."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from dvc.dependency import param
from dvc.lock import LockError, make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

from medrobust.core.ending import children_environment
from medrobust.core.runtime import say

T = TypeVar("T")

#: What DVC says after every stage, and what `say` says already.
CHATTER = (
    "To track the changes with git", "git add", "To enable auto staging", "dvc config core.autostage",
    "Use `dvc push`", "Running stage", "Updating lock file", "Generating lock file", "Data and pipelines are up",
)  # fmt: skip
#: What DVC says where another process uses a file; the next line names that process.
BUSY = "is busy, it is being blocked by"
#: Seconds between two tries.
RETRY = 2.0


def in_repo(ask: Callable[[Repo], T]) -> T:
    """What a function of the repository in this folder gives."""
    told = ""
    while True:
        try:
            with Repo(_wait_for_lock=True) as repo:
                discard_broken_lock(repo)
                return ask(repo)
        except LockError as error:
            message = " ".join(str(error).partition("\n\n")[0].split())
            if message != told:
                say(f"another DVC process is at work; waiting for it: {message}")
            told = message
            time.sleep(RETRY)


@contextmanager
def params_read_once() -> Iterator[None]:
    """While this lasts, DVC parses each file of params once.

    It parses params.yaml for every stage whose status it asks, which is a third of the time of `dvc status`. The
    values that it gets are only read.
    """
    load = param.load_path
    param.load_path = cache(load)
    try:
        yield
    finally:
        param.load_path = load


def discard_broken_lock(repo: Repo) -> None:
    """Remove DVC's list of files in use if it is not readable: every command of DVC would fail.

    DVC does not write it at once, so a process that is killed meanwhile leaves an empty file.

    Raises:
        LockError: another process is at work on the list.
    """
    folder = Path(repo.tmp_dir)
    in_use, hardlink = folder / RWLOCK_FILE, repo.config["core"].get("hardlink_lock", False)
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=repo.tmp_dir, hardlink_lock=hardlink):
        try:
            json.loads(in_use.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            in_use.unlink()
            say(f"removed {in_use.relative_to(repo.root_dir)}, which a killed DVC process left unreadable")


def run_stage(name: str, *others: str, force: bool = False) -> bool:
    """Run one stage by DVC if it has changed, or with `force`; print each line of its output behind its name.

    With `others`, which need nothing of each other, one call of DVC runs all, one after the other.

    The stage ends with this process (`medrobust.core.ending`).

    Returns:
        Whether it succeeded.
    """
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), name, *others]
    label = f"{name} and {len(others)} more" if others else name
    told = False
    while True:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=children_environment()
        )
        assert process.stdout is not None
        busy: list[str] = []
        for line in filter(None, map(str.strip, process.stdout)):
            if busy or BUSY in line:
                busy.append(line)
            elif not line.startswith(CHATTER):
                say(f"{label} | {line}")
        if process.wait() == 0 or not busy:
            return process.returncode == 0
        if not told:
            say(f"{label} | another DVC process is at work; waiting for it: {' '.join(busy[:2])}")
        told = True
        time.sleep(RETRY)
