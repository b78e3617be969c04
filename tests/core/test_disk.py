"""A killed write leaves nothing that looks complete, and a disk that refuses is one message."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medrobust.core.disk import is_alive, remove_killed_writes
from medrobust.core.errors import UserError
from medrobust.core.records import atomic_dir, atomic_file, write_json

#: Writes a file and a folder over earlier ones and stops at one system call of the write.
WRITER = """
import os, shutil, signal, sys, time
from pathlib import Path
from medrobust.core import ending, records
held = ending.early_end()
held.__enter__()
phase, number = sys.argv[1], int(sys.argv[2])
counted = {{"n": 0}}
def stop(*args, **kwargs):
    counted["n"] += 1
    if counted["n"] == number:
        Path("waiting").touch()
        while not Path("go").exists():
            time.sleep(0.01)
for place, name in ((Path, "replace"), (Path, "mkdir"), (os, "fsync"), (shutil, "rmtree"), (Path, "unlink")):
    if phase == name:
        real = getattr(place, name)
        def first(*args, real=real, **kwargs):
            stop()
            return real(*args, **kwargs)
        setattr(place, name, first)
with {kind}(Path("out/{target}")) as temporary:
    if phase == "body":
        stop()
    if temporary.is_dir():
        for name in "ab":
            (temporary / name).write_text("new")
    else:
        temporary.write_text("new")
"""


def writer(folder: Path, kind: str, phase: str, number: int = 1) -> subprocess.Popen[bytes]:
    """A process that has stopped in a phase of its write, or has ended where it never gets there."""
    script = WRITER.format(kind=f"records.{kind}", target="x.json" if kind == "atomic_file" else "x")
    process = subprocess.Popen([sys.executable, "-c", script, phase, str(number)], cwd=folder)
    while not (folder / "waiting").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def content(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else path.rglob("*")
    return {file.name: file.read_text() for file in files}


PHASES = [
    *(("atomic_file", phase, 1) for phase in ("mkdir", "body", "fsync", "replace", "unlink")),
    *(("atomic_dir", phase, 1) for phase in ("mkdir", "body")),
    *(("atomic_dir", phase, number) for phase in ("replace", "rmtree") for number in (1, 2)),
    ("atomic_dir", "rmtree", 3),
]
#: A signal here ends the cleaning up; the next write has to do the rest.
CLEANING_UP = {("rmtree", 2), ("rmtree", 3), ("unlink", 1)}


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("kind", "phase", "number"), PHASES)
def test_a_write_that_is_killed_leaves_the_old_or_the_new_whole(
    tmp_path: Path, kind: str, phase: str, number: int, ended_by: signal.Signals
) -> None:
    out = tmp_path / "out"
    target, names = (out / "x", "ab") if kind == "atomic_dir" else (out / "x.json", ["x.json"])
    out.mkdir()
    if kind == "atomic_dir":
        target.mkdir()
    for name in names:
        (target / name if kind == "atomic_dir" else target).write_text("old")
    process = writer(tmp_path, kind, phase, number)
    assert process.poll() is None, "it never came to this phase"
    process.send_signal(ended_by)
    assert process.wait(30) in (-ended_by, 128 + ended_by)
    found = content(target)
    if found or ended_by == signal.SIGTERM:
        assert found in (dict.fromkeys(names, "old"), dict.fromkeys(names, "new"))
    if ended_by == signal.SIGTERM and (phase, number) not in CLEANING_UP:
        assert [path.name for path in out.iterdir()] == [target.name]
    # The next write of the same out removes what a killed process left.
    (tmp_path / "waiting").unlink()
    assert writer(tmp_path, kind, "none").wait(30) == 0
    assert content(target) == dict.fromkeys(names, "new")
    assert [path.name for path in out.iterdir()] == [target.name]


def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = [f".a.{os.getpid()}.tmp", ".a.1.tmp.json", "a.1.tmp", ".a.tmp", ".notes"]
    gone = [f".a.{dead.pid}.tmp", f".a.{dead.pid}.tmp.json", f".a.b.{dead.pid}.tmp.png", f".a.{10**30}.tmp"]
    for name in kept + gone:
        (tmp_path / name).touch()
    (tmp_path / f".folder.{dead.pid}.tmp" / "inner").mkdir(parents=True)
    removed = remove_killed_writes(tmp_path.iterdir())
    assert {path.name for path in removed} == {*gone, f".folder.{dead.pid}.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_write_leaves_the_temporary_files_of_others(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f".a.{dead.pid}.tmp.json", f".b.{dead.pid}.tmp.json", ".a[1].1.tmp.json"):
        (tmp_path / name).touch()
    write_json(tmp_path / "a.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", f".b.{dead.pid}.tmp.json", ".a[1].1.tmp.json"}


def test_a_process_is_alive_until_it_has_ended() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert is_alive(process.pid)
    process.kill()
    process.wait()
    assert not is_alive(process.pid)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


STAGE = """
import numpy as np, pandas as pd
from pathlib import Path
from medrobust.core.records import atomic_dir, write_table
from medrobust.core.runtime import run_stage
def main():
    {body}
run_stage(main, "cell")
"""


def stage(folder: Path, body: str, **options: object) -> str:
    """What a stage says that has to end with exit code 1 and no traceback."""
    command = [sys.executable, "-c", STAGE.format(body=body)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr.strip())


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_limit_of_file_sizes_is_one_message(tmp_path: Path, name: str) -> None:
    body = f'write_table("{name}", pd.DataFrame({{"a": np.random.rand(10_000)}}))'
    told = stage(tmp_path, body, preexec_fn=limit_file_size)
    assert told.startswith(
        f"cell: {name}: cannot be written: File too large. The previous version is intact. Raise"
    )
    assert "ulimit -f unlimited" in told
    assert not [path for path in tmp_path.iterdir() if path.name != "tmp"]


def test_an_array_beyond_the_limit_is_one_message(tmp_path: Path) -> None:
    body = 'np.lib.format.open_memmap("x.npy", "w+", np.uint8, (10**6,)).flush()'
    told = stage(tmp_path, body, preexec_fn=limit_file_size)
    assert "cannot be read or written: File too large. Raise the limit" in told


def small_disk(folder: Path, *options: str) -> Callable[[], int]:
    """Mount a disk of 64 kB; how to take it away again."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "none", str(folder)],
                      capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("a disk cannot be mounted here")
    return lambda: subprocess.check_call(["umount", str(folder)])


@pytest.mark.slow
def test_a_disk_that_is_full_when_a_stage_starts_is_one_message(tmp_path: Path) -> None:
    unmount = small_disk(tmp_path / "disk")
    try:
        with pytest.raises(OSError, match="No space"), (tmp_path / "disk" / "all").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        told = stage(tmp_path / "disk", "pass")
        assert told.startswith("cell: tmp: cannot be read or written: No space left on device. Free disk space")
    finally:
        unmount()


@pytest.mark.slow
def test_a_read_only_folder_is_one_message(tmp_path: Path) -> None:
    unmount = small_disk(tmp_path / "data", "ro")
    try:
        told = stage(tmp_path, 'write_table("data/a/t.csv", pd.DataFrame())')
        assert told == (
            "cell: data/a/t.csv: cannot be written: Read-only file system. The previous version is intact. "
            "Mount the disk with write access and run the same command again to continue"
        )
        told = stage(tmp_path, 'atomic_dir("data/model").__enter__()')
        assert told.startswith("cell: data/model: cannot be written: Read-only file system")
        told = stage(tmp_path, 'open("data/x", "w")')
        assert told.startswith("cell: data/x: cannot be read or written: Read-only file system. Mount")
    finally:
        unmount()


@pytest.mark.parametrize("atomic", [atomic_file, atomic_dir])
def test_a_folder_of_somebody_else_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: Callable[[Path], object]
) -> None:
    """By a mock: no folder refuses root."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"x: cannot be written: Permission denied\. .* Give yourself access"):
        atomic(tmp_path / "x").__enter__()  # type: ignore[attr-defined]


def test_another_error_of_the_system_keeps_its_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STAGE.format(body='open("missing")')]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" in done.stderr
    assert "FileNotFoundError" in done.stderr
