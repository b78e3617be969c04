"""What a Dask worker does for a run (docs/scaling.md): it checks itself, keeps clones, and runs cells in them.

The head sends this module by value, so a worker needs the packages of requirements.lock and git, and no checkout.
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from distributed import Event, Reschedule, Worker, WorkerPlugin, get_worker

#: Topic of the events that a worker sends: (key of the run, cell, line of its output).
TOPIC = "medrobust"
#: How programs report a full disk.
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


@dataclass(frozen=True)
class Run:
    """What the head tells its workers of a run."""

    repository: str  # what `git clone` gets it from
    commit: str
    cache: str  # DVC's cache, the same folder on all machines
    probe: tuple[str, str]  # a file in the cache, and what it has in it
    packages: dict[str, str]  # name -> version on the head; empty: any
    python: str  # "": any
    scratch: str  # folder of resume files
    links: dict[str, str]  # relative paths in params.yaml -> the files that they mean
    threads: str  # MEDROBUST_THREADS, which decides how sums are rounded

    @property
    def key(self) -> str:
        """A text that no other run has."""
        return self.probe[0]


def refusal(run: Run, clones: Path) -> str:
    """Why this machine cannot take part, with the remedy; "" if it can. Prepares the first clone."""
    if found := _other_versions(run) or _other_cache(run):
        return found
    try:
        with free_clone(run, clones):
            return ""
    except subprocess.CalledProcessError as error:
        if is_full(error.stderr):
            return no_space(clones)
        said = "".join(str(error.stderr).strip().splitlines()[-1:])
        return f"cannot get commit {run.commit[:10]} of {run.repository} ({said}). Push it first"
    except OSError as error:
        return no_space(clones) if is_full(str(error)) else f"{clones} cannot be written ({error.strerror})"


def is_full(text: str) -> bool:
    """Whether a message is about a full disk."""
    return any(reason in text for reason in FULL)


def no_space(*folders: Path) -> str:
    """Where space is missing, and how much there is."""
    found = [folder if folder.is_dir() else folder.parent for folder in folders]
    free = ", ".join(f"{folder} has {shutil.disk_usage(folder).free >> 20} MiB free" for folder in found)
    return f"no space left on {platform.node()} ({free}). Free space there, or use another --local-directory"


def _other_versions(run: Run) -> str:
    if run.python and platform.python_version() != run.python:
        return f"has Python {platform.python_version()}, the head {run.python}. Install the head's version"
    for name, wanted in run.packages.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            return f"{name} is {found}, on the head {wanted}. Run `make extras` on the head's commit"
    return ""


def _other_cache(run: Run) -> str:
    probe = Path(run.cache) / run.probe[0]
    reply = probe.with_name(f"{probe.name}-{platform.node()}-{os.getpid()}")
    try:
        same = probe.is_file() and probe.read_text(encoding="utf-8") == run.probe[1]
        if same:
            reply.touch()
            reply.unlink()
    except OSError as error:
        return f"{run.cache} cannot be written ({error.strerror}). Check the rights and the space there"
    return "" if same else f"{run.cache} is another folder than on the head. Mount the head's cache there"


class Medrobust(WorkerPlugin):  # type: ignore[misc]
    """Checks each worker, also one that joins later: it is made ready, or it leaves."""

    name = TOPIC

    def __init__(self, run: Run) -> None:
        self.run, self.ready = run, False

    def setup(self, worker: Worker) -> None:
        """Check the machine; a worker that cannot take part says why and leaves."""
        if reason := refusal(self.run, clones_of(worker)):
            worker.log_event(TOPIC, (self.run.key, f"worker {worker.address}", f"is refused: {reason}"))
            worker.loop.call_later(1, worker.close, reason="refused")
        else:
            self.ready = True


def clones_of(worker: Worker) -> Path:
    """Where a worker keeps its clones: beside its own folder, so that the next process finds them."""
    return Path(worker.local_directory).parent / "medrobust-clones"


def check_worker(run: Run, dask_worker: Worker) -> str:
    """`refusal` of a worker; `Client.run` fills in the second argument."""
    return refusal(run, clones_of(dask_worker))


def run_cell(run: Run, name: str, entries: dict[str, Any], inputs: list[str]) -> bool | None:
    """Run one cell in a clone; its results are then in DVC's cache.

    Returns:
        Whether it succeeded; None if it was not started, because another one had failed.

    Args:
        entries: of dvc.lock, of all stages that the cell depends on.
        inputs: those of them whose outs are checked out.
    """
    worker = get_worker()
    if Event(run.key).is_set():
        return None
    if not worker.plugins[TOPIC].ready:
        raise Reschedule
    clones, full = clones_of(worker), False

    def tell(line: str) -> None:
        nonlocal full
        full |= is_full(line)
        worker.log_event(TOPIC, (run.key, name, line))

    try:
        with free_clone(run, clones) as (clone, lock):
            # DVC reads YAML, of which JSON is a part.
            (clone / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": entries}), encoding="utf-8")
            done = _repro(run, clone, lock, name, inputs, tell)
    except (OSError, subprocess.CalledProcessError) as error:
        tell(" ".join(f"{error} {getattr(error, 'stderr', None) or ''}".split()))
        done = False
    if full and not done:
        tell(f"worker {worker.address}: {no_space(clones, Path(run.cache))}")
    return done


def _repro(run: Run, clone: Path, lock: int, name: str, inputs: list[str], tell: Callable[[str], None]) -> bool:
    """Check out the inputs of a cell and run it by DVC; whether it succeeded."""
    dvc = [sys.executable, "-m", "dvc", "--wait-for-lock"]
    commands = [[*dvc, "repro", "--single-item", name]]
    if inputs:
        commands.insert(0, [*dvc, "checkout", "--force", "--quiet", *inputs])
    for command in commands:
        process = subprocess.Popen(
            command, cwd=clone, env=environment(run, clone), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", pass_fds=[lock],
        )  # fmt: skip
        assert process.stdout is not None
        for line in filter(None, map(str.strip, process.stdout)):
            tell(line)
        if process.wait():
            return False
    return True


def environment(run: Run, clone: Path) -> dict[str, str]:
    """The environment of DVC: this Python and the clone's code; the stage ends when this process ends."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
        "MEDROBUST_PARENTS": str(os.getpid()),
        "MEDROBUST_THREADS": run.threads,
    }


@contextmanager
def free_clone(run: Run, folder: Path) -> Iterator[tuple[Path, int]]:
    """A clone at the run's commit that no other process or thread of this machine uses, and its lock.

    A process that inherits the lock keeps it: should this one be killed, its DVC is left alone in the clone.

    Raises:
        subprocess.CalledProcessError: git cannot get the commit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        with (folder / f"{number}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            prepare_clone(run, folder / str(number))
            yield folder / str(number), lock.fileno()
            return


def prepare_clone(run: Run, clone: Path) -> None:
    """Bring a clone to the run's commit, with the shared cache, resume files and the files of params.yaml."""
    if not (clone / ".git").exists():
        _git(clone.parent, "clone", "--quiet", "--no-checkout", run.repository, str(clone))
    _git(clone, "remote", "set-url", "origin", run.repository)
    if subprocess.run(
        ["git", "cat-file", "-e", run.commit], cwd=clone, check=False, capture_output=True
    ).returncode:
        _git(clone, "fetch", "--quiet", "origin", run.commit)
    _git(clone, "checkout", "--quiet", "--force", "--detach", run.commit)
    local = f"[cache]\n    dir = {run.cache}\n"
    (clone / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    for name, target in {**run.links, "tmp/resume": run.scratch}.items():
        link = clone / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(target)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
