"""What `medrobust doctor` says about a clone: data, remotes, dvc.lock, DVC's locks, and locked packages."""

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from os.path import expandvars
from pathlib import Path
from typing import Any

import click

from medrobust.cli.options import counted
from medrobust.core.disk import is_alive

#: Seconds after its start in which DVC and the remotes have to answer.
PATIENCE = 4.0
#: How many names a line lists.
NAMED = 3


class Question:
    """A process that asks DVC and the remotes, while this one looks at the rest."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "medrobust.cli.ask_dvc", str(folder)]
        self._end = time.monotonic() + PATIENCE
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def facts(self) -> list[dict[str, Any]]:
        """What it has said in time; see `medrobust.cli.ask_dvc`."""
        try:
            output, _ = self._process.communicate(timeout=max(0.0, self._end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        return [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]


def data(folder: Path) -> list[str]:
    """Show the data and the published models; what is missing."""
    from medrobust.core.errors import UserError
    from medrobust.core.params.schema import load_params

    try:
        params = load_params(folder / "params.yaml")
    except UserError as error:
        return [str(error)]
    prepared = (folder / "data" / "prepared" / "header.json").is_file()
    click.echo(f"data: source {params.data.source}, {'prepared' if prepared else 'not prepared (make repro)'}")
    models = sorted(path.parent.relative_to(folder) for path in (folder / "models").glob("*/*/card.json"))
    click.echo(f"models: {', '.join(map(str, models)) or 'none (make repro, or dvc pull)'}")
    path = params.data.path
    if not path or "://" in path or params.data.source in ("medmnist", "kaggle"):
        return []
    found = Path(expandvars(path)).expanduser()
    click.echo(f"data.path: {found if found.exists() else f'{path}, which is not here'}")
    if found.exists() or prepared:  # prepared data need no raw data
        return []
    unset = "; set the variable" if "$" in str(found) else ""
    return [f"data.path: {path} does not exist{unset}"]


def pipeline(question: Question | None, lock: Path) -> list[str]:
    """Show the remotes with their answers, and whether dvc.lock has every stage; what is missing."""
    if question is None:
        click.echo("DVC remotes: none, because the folder .dvc or the package dvc is missing")
        return []
    facts: dict[str, Any] = {}
    answers = {}
    for fact in question.facts():
        if "remote" in fact:
            answers[fact["remote"]] = fact["answer"]
        facts |= fact
    if "error" in facts:
        return [f"DVC: {facts['error']}"]
    if "remotes" not in facts:
        click.echo(f"DVC: no answer within {PATIENCE:g} s")
        return []
    if not facts["remotes"]:
        click.echo("DVC remotes: none (docs/sharing.md)")
    for remote in facts["remotes"]:
        scheme, sign, _ = remote["address"].partition("://")
        name = f"{remote['name']}{' (default)' if remote['default'] else ''}"
        said = answers.get(remote["name"], f"no answer within {PATIENCE:g} s")
        click.echo(f"DVC remote {name}: {scheme if sign else 'folder'}, {remote['address']}: {said}")
    if not lock.is_file() or "without" not in facts:
        return []
    if not facts["without"]:
        click.echo(f"dvc.lock: has all {facts['stages']} stages of dvc.yaml")
        return []
    missing = (
        f"{len(facts['without'])} of {counted(facts['stages'], 'stage')} never ran ({_some(facts['without'])})"
    )
    return [f"dvc.lock: {missing}. Run: make repro"]


def locks(folder: Path) -> None:
    """Show which locks of DVC a process holds, and which are left of one that has ended."""
    lines = [*_repository_lock(folder / "lock"), *_files_in_use(folder / "rwlock")]
    for line in lines or ["none is held"]:
        click.echo(f"DVC locks: {line}")


def packages(lock: Path) -> None:
    """Show the installed packages whose version is not that of the lock."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not lock.is_file():
        return
    same, other = 0, []
    for line in lock.read_text(encoding="utf-8").splitlines():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:  # a comment
            continue
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:  # of an extra; what the pipeline needs is listed above
            continue
        if found in wanted.specifier:
            same += 1
        else:
            other.append(f"{wanted.name} {found} instead of {str(wanted.specifier).lstrip('=')}")
    all_of_them = counted(same + len(other), "installed package")
    if other:
        click.echo(
            f"{lock.name}: {len(other)} of {all_of_them} differ ({_some(other)}), so results may. Run: make setup"
        )
    else:
        click.echo(f"{lock.name}: all of {all_of_them} as locked")


def _repository_lock(path: Path) -> Iterator[str]:
    """The lock that a command of DVC holds while it reads or writes dvc.lock; the file stays after it."""
    try:
        with path.open("rb") as file:
            pid = file.read(20).decode(errors="replace").strip()
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        yield f"{path.name}: held by process {pid}"
    except FileNotFoundError:
        return


def _files_in_use(path: Path) -> Iterator[str]:
    """One line per process in DVC's list of files in use."""
    try:
        content = json.loads(path.read_bytes())
        entries = [
            *content.get("write", {}).values(),
            *(one for some in content.get("read", {}).values() for one in some),
        ]
        found = {int(one["pid"]): str(one["cmd"]) for one in entries}
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"{path.name}: not readable, of a process that was killed. `make repro` removes it"
        return
    for pid, command in found.items():
        if is_alive(pid):
            yield f"{path.name}: files in use by process {pid} ({command})"
        else:
            yield f"{path.name}: stale, of process {pid} ({command}), which has ended. DVC removes it"


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def programs() -> list[str]:
    """The programs that the pipeline needs and that are missing."""
    return [f"{tool}, a program. Install it" for tool in ("git", "dvc") if shutil.which(tool) is None]
