"""What `medrobust doctor` says of a clone: each remote, dvc.lock, DVC's locks, and the locked packages."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from medrobust.cli import repository
from medrobust.cli.group import commands
from medrobust.core.remotes import without_secrets
from tests.params import preset, save

PIPELINE = "stages:\n  one:\n    matrix: {name: [a, b]}\n    cmd: echo ${item.name}\n  two:\n    cmd: echo\n"
ENTRY = "    cmd: echo\n"


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_DEVICE", "cpu")
    monkeypatch.setattr(repository, "PATIENCE", 120.0)  # for a loaded machine


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC with three stages, in which two ran."""
    folder = tmp_path / "clone"
    folder.mkdir()
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  one@a:\n{ENTRY}  two:\n{ENTRY}")
    save(folder, preset("default"))
    monkeypatch.chdir(folder)
    return folder


def doctor(*wanted: str, code: int = 0) -> str:
    """What it prints, which has these texts."""
    result = CliRunner().invoke(commands, ["doctor"])
    assert result.exit_code == code, result.output
    for text in wanted:
        assert text in result.stdout, result.stdout
    return result.stdout


def set_remotes(folder: Path, default: str, **addresses: str) -> None:
    lines = [f"[core]\n    no_scm = True\n    remote = {default}\n"]
    lines += [f"['remote \"{name}\"']\n    url = {address}\n" for name, address in addresses.items()]
    (folder / ".dvc" / "config").write_text("".join(lines))


class NothingThere(SimpleHTTPRequestHandler):
    def send_head(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a server on this machine that has no file, without the scheme."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), NothingThere)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def test_each_remote_has_its_kind_and_its_answer_and_no_password(clone: Path, tmp_path: Path, web: str) -> None:
    (tmp_path / "store").mkdir()
    closed = socket.create_server(("127.0.0.1", 0))
    gone = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    set_remotes(
        clone, "store", store=str(tmp_path / "store"), elsewhere="/nowhere", web=f"http://me:pass-1@{web}/x",
        gone=f"http://me:pass-1@{gone}/x", unknown="gs://bucket/path",
    )  # fmt: skip
    config = clone / ".dvc" / "config.local"
    config.write_text("['remote \"web\"']\n    password = pass-2\n    user = me\n    auth = basic\n")
    (clone / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  one@a:\n{ENTRY}  one@b:\n{ENTRY}  two:\n{ENTRY}")
    output = doctor(
        f"DVC remote store (default): folder, {tmp_path / 'store'}: answers\n",
        "DVC remote elsewhere: folder, /nowhere: is the folder /nowhere, which does not exist here\n",
        f"DVC remote web: http, http://{web}/x: answers\n",
        f"DVC remote gone: http, http://{gone}/x: cannot be used here: ",
        "DVC remote unknown: gs, gs://bucket/path: cannot be used here: ",
        "dvc.lock: has all 3 stages of dvc.yaml\n",
    )
    assert "pass-" not in output


@pytest.mark.slow
def test_a_remote_that_says_nothing_ends_with_the_patience(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        set_remotes(clone, "slow", slow=f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        monkeypatch.setattr(repository, "PATIENCE", 15.0)
        doctor(": no answer within 15 s\n", "1 of 3 stages never ran", code=1)
    monkeypatch.setattr(repository, "PATIENCE", 0.0)
    doctor("DVC: no answer within 0 s\n")


def test_stages_without_an_entry_and_a_broken_pipeline_are_missing(clone: Path) -> None:
    doctor("missing: dvc.lock: 1 of 3 stages never ran (one@b). Run: make repro", "DVC remotes: none", code=1)
    (clone / ".dvc" / "config").write_text("[core]\n    nonsense = 1\n")
    doctor("missing: DVC: config file error", code=1)


def test_the_locks_of_dvc_are_held_or_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> list[str]:
        repository.locks(tmp_path)
        return capsys.readouterr().out.splitlines()

    assert said() == ["DVC locks: none is held"]
    (tmp_path / "lock").write_text(" 12345\n")  # what DVC leaves
    assert said() == ["DVC locks: none is held"]
    with (tmp_path / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert said() == ["DVC locks: lock: held by process 12345"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, other = ({"pid": pid, "cmd": "dvc repro"} for pid in (os.getpid(), ended.pid))
    (tmp_path / "rwlock").write_text(json.dumps({"write": {"/a": mine, "/b": mine}, "read": {"/c": [other]}}))
    assert said() == [
        f"DVC locks: rwlock: files in use by process {os.getpid()} (dvc repro)",
        f"DVC locks: rwlock: stale, of process {ended.pid} (dvc repro), which has ended. DVC removes it",
    ]
    for broken in ("", "[]", '{"write": {"/a": 1}}'):
        (tmp_path / "rwlock").write_text(broken)
        assert said() == ["DVC locks: rwlock: not readable, of a process that was killed. `make repro` removes it"]


def test_packages_are_compared_with_the_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "requirements.lock"
    good = f"# made by a program\nnumpy=={version('numpy')}\n    # via here\nnone-such==1.0\n"
    lock.write_text(f"{good}click==0.1 ; python_version < '3'\n")
    repository.packages(lock)
    assert capsys.readouterr().out == "requirements.lock: all of 1 installed package as locked\n"
    lock.write_text(f"{good}click==0.1\n")
    repository.packages(lock)
    wanted = f"requirements.lock: 1 of 2 installed packages differ (click {version('click')} instead of 0.1), so"
    assert capsys.readouterr().out.startswith(wanted)
    repository.packages(tmp_path / "none")
    assert capsys.readouterr().out == ""


def test_secrets_are_taken_out_of_messages() -> None:
    text = "403 at https://me:word@host/x?X-Amz-Signature=abc, key KEY, https://host:8080/y"
    assert without_secrets(text, {"url": "host", "access_key_id": "KEY"}) == (
        "403 at https://host/x key ***, https://host:8080/y"
    )
