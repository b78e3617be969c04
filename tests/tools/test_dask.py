"""Cells on Dask workers: the same results, dvc.lock and metrics as `dvc repro`, whoever is killed on the way."""

import errno
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from medrobust.core.disk import is_alive
from medrobust.core.errors import UserError
from tests.params import preset, save
from tests.tools.toy import ENVIRONMENT, commit, run, start

pytest.importorskip("distributed")
from tools import dask_worker
from tools.dask_head import connected, read_resources
from tools.dask_worker import Run, refusal

#: A cell that tells its process and where it runs, and waits while there is a file `hold` in `MARKS`. As each
#: stage it ends with the worker.
CELL = """
import os, sys, time
from pathlib import Path
from medrobust.core.ending import early_end
name, marks = sys.argv[1], Path(os.environ["MARKS"])
with (marks / f"{name}.ran").open("a") as file:
    file.write(f"{os.getpid()} {Path.cwd()}\\n")
with early_end():
    while (marks / f"hold-{name}").exists():
        time.sleep(0.05)
if (marks / f"full-{name}").exists():
    Path("/dev/full").write_text("text")
if (marks / f"fail-{name}").exists():
    raise ValueError(f"{name} cannot be computed")
text = "".join(Path(path).read_text() for path in sys.argv[2:])
Path(f"{name}.txt").write_text(f"{name}({text})")
if name in "bc":
    Path(f"{name}.json").write_text('{"value": 1}')
"""
#: A training of four epochs. After the second one it tells its process and where it runs, and waits as `CELL`.
TRAINING = """
import os, time
from pathlib import Path
import numpy as np
import torch
from torch import nn
from medrobust.core.ending import early_end
from medrobust.core.params.schema import load_params
from medrobust.data.store import Subset
from medrobust.training.loop import Job, fit
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.state import delete_resume_file
marks = Path(os.environ["MARKS"])
def on_epoch(epoch, row):
    if epoch == 1:
        with (marks / "t.ran").open("a") as file:
            file.write(f"{os.getpid()} {Path.cwd()}\\n")
        while (marks / "hold-t").exists():
            time.sleep(0.05)
with early_end():
    params, labels, names = load_params(), np.arange(32) % 2, np.arange(32).astype(str)
    pixels = np.random.default_rng(0).normal(80 + 90 * labels[:, None, None], 20, (32, 12, 12)).clip(0, 255)
    images = Subset(pixels.astype(np.uint8), np.arange(32), labels, names, names, ["dark", "bright"])
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    network = nn.Sequential(*layers)
    settings = params.train.model_copy(update={"epochs": 4})
    job = Job(network, images, images, settings, params.augment, OBJECTIVES["cross_entropy"], 1, key="t")
    history = fit(job, on_epoch).history
    weights = {name: value.numpy().tobytes().hex() for name, value in network.state_dict().items()}
    Path("t.txt").write_text(f"{history} {weights}")
    delete_resume_file("t")
"""


def cell(name: str, *deps: str) -> dict[str, object]:
    """A stage that reads the texts of others."""
    files = [f"{dep}.txt" for dep in deps]
    command = " ".join([sys.executable, "cell.py", name, *files])
    return {"cmd": command, "deps": ["cell.py", *files], "outs": [f"{name}.txt"]}


#: a -> b, c -> d; b -> e; f reads a metric, which DVC does not store.
STAGES = {
    "a": cell("a"),
    "b": cell("b", "a") | {"metrics": [{"b.json": {"cache": False}}]},
    "c": cell("c", "a") | {"metrics": [{"c.json": {"cache": False}}]},
    "d": cell("d", "b", "c"),
    "e": cell("e", "b"),
    "f": cell("f") | {"deps": ["cell.py", "b.json", "e.txt"]},
}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of six stages, committed, in which nothing has run."""
    folder, marks = tmp_path / "repo", tmp_path / "marks"
    folder.mkdir()
    marks.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "MARKS", str(marks))
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))
    (folder / "cell.py").write_text(CELL)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    (folder / ".gitignore").write_text("/*.txt\n/tmp\n")
    (folder / "models").mkdir()
    save(folder, preset("smoke"))
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, sys.executable, "-m", "tools.artifacts")
    commit(folder)
    return folder


@contextmanager
def cluster(folder: Path, *workers: tuple[str, ...]) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and workers as processes of their own: its address, and the workers."""
    file = folder / "scheduler.json"
    options = ("--no-dashboard", "--host", "127.0.0.1", "--port", "0")
    processes = [start(folder, "dask", "scheduler", *options, "--scheduler-file", str(file))]
    try:
        wait_for(file)
        for number, more in enumerate(workers):
            local = folder / f"worker{number}"
            local.mkdir()
            command = ("dask", "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard")
            own = ("--host", "127.0.0.1", "--local-directory", str(local))
            processes.append(start(folder, *command, *own, *more))
        yield yaml.safe_load(file.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(path: Path, seconds: float = 300, *, empty: bool = False) -> None:
    end = time.monotonic() + seconds
    while not path.exists() or not (empty or path.read_text().strip()):
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.1)


def marks(repo: Path) -> Path:
    return repo.parent / "marks"


def ran(repo: Path, name: str) -> list[str]:
    """A line per time that a cell ran: its process and folder."""
    file = marks(repo) / f"{name}.ran"
    return file.read_text().splitlines() if file.is_file() else []


def command(scheduler: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tools.repro", "--engine", "dask", "--scheduler", scheduler, *options)


def assert_finished(repo: Path) -> None:
    """All results are here, and they are those of a plain `dvc repro` in another clone without a cache."""
    plain = repo.parent / "plain"
    run(repo.parent, "git", "clone", "--quiet", str(repo), str(plain))
    run(plain, "dvc", "repro", "--quiet")
    for name in (*(f"{stage}.txt" for stage in STAGES), "b.json", "c.json"):
        assert (repo / name).read_bytes() == (plain / name).read_bytes(), name
    locks = [yaml.safe_load((folder / "dvc.lock").read_text()) for folder in (repo, plain)]
    assert locks[0] == locks[1]  # as texts they differ in the order of the stages
    assert run(repo, "dvc", "status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_two_workers_give_what_dvc_repro_gives(repo: Path) -> None:
    with cluster(repo.parent, (), ()) as (scheduler, _):
        for name in "bc":  # each waits until the other one runs
            (marks(repo) / f"hold-{name}").touch()
        head = start(repo, *command(scheduler))
        for name in "bc":
            wait_for(marks(repo) / f"{name}.ran")
        for name in "bc":
            (marks(repo) / f"hold-{name}").unlink()
        output, _ = head.communicate(timeout=600)
    assert head.returncode == 0, output
    for name in "abcde":
        (line,) = ran(repo, name)
        assert line.split()[1].startswith(str(repo.parent / "worker")), "a cell ran on the head"
    assert ran(repo, "f")[0].split()[1] == str(repo), "it reads a metric, which is in no worker's clone"
    assert_finished(repo)


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_head_cost_only_what_they_were_running(repo: Path) -> None:
    with cluster(repo.parent, ("--no-nanny",), ("--no-nanny",)) as (scheduler, workers):
        (marks(repo) / "hold-c").touch()
        (marks(repo) / "hold-b").touch()
        head = start(repo, *command(scheduler))
        wait_for(marks(repo) / "c.ran")
        where = Path(ran(repo, "c")[0].split()[1])
        lost = next(process for number, process in enumerate(workers) if f"worker{number}" in where.parts)
        lost.send_signal(signal.SIGKILL)
        head.send_signal(signal.SIGKILL)
        head.wait()
        for name in "bc":
            (marks(repo) / f"hold-{name}").unlink()
        run(repo, *command(scheduler))
    assert len(ran(repo, "a")) == 1, "what had ended before the head was killed is not computed again"
    assert_finished(repo)


@pytest.mark.slow
def test_a_cell_moves_to_another_worker_when_its_own_is_killed(repo: Path) -> None:
    with cluster(repo.parent, ("--no-nanny",), ("--no-nanny",)) as (scheduler, workers):
        (marks(repo) / "hold-a").touch()
        head = start(repo, *command(scheduler))
        wait_for(marks(repo) / "a.ran")
        first = int("worker1" in ran(repo, "a")[0])
        workers[first].send_signal(signal.SIGKILL)
        while len(ran(repo, "a")) < 2:
            assert head.poll() is None
            time.sleep(0.1)
        (marks(repo) / "hold-a").unlink()
        output, _ = head.communicate(timeout=600)
    assert head.returncode == 0, output
    assert f"worker{1 - first}" in ran(repo, "a")[-1]
    assert_finished(repo)


@pytest.mark.slow
@pytest.mark.parametrize("keep_going", [False, True])
def test_a_cell_that_fails_is_shown_and_others_end(repo: Path, keep_going: bool) -> None:
    (marks(repo) / "fail-c").touch()
    (marks(repo) / "hold-b").touch()
    with cluster(repo.parent, (), ()) as (scheduler, _):
        head = start(repo, *command(scheduler, *["--keep-going"] * keep_going))
        wait_for(marks(repo) / "c.ran")
        (marks(repo) / "hold-b").unlink()
        output, _ = head.communicate(timeout=600)
    assert head.returncode == 1
    assert "c | ValueError: c cannot be computed\n" in output
    assert "failed: c\n" in output
    assert (repo / "b.txt").is_file()
    assert not ran(repo, "d")
    if keep_going:
        assert (repo / "f.txt").is_file()


@pytest.mark.slow
def test_a_full_disk_at_a_worker_is_named_and_others_end(repo: Path) -> None:
    """The cell writes to a device that is full; others end on another worker."""
    (marks(repo) / "full-b").touch()
    (repo.parent / "resources.yaml").write_text("b: {GPU: 1}\n")
    options = ("--keep-going", "--resources", str(repo.parent / "resources.yaml"))
    with cluster(repo.parent, (), ("--resources", "GPU=1")) as (scheduler, _):
        output = run(repo, *command(scheduler, *options), code=1)
    (line,) = [line for line in output.splitlines() if "no space left" in line]
    clones, cache = repo.parent / "worker1" / "medrobust-clones", repo / ".dvc" / "cache"
    found = re.fullmatch(r"b \| worker (\S+): no space left on (\S+) \((\S+) has \d+ MiB free, (\S+) has .*", line)
    assert found, line
    assert found[1].startswith("tcp://127.0.0.1:")
    assert found[2] == platform.node()
    assert str(clones.parent) in found[3]
    assert found[4].startswith(str(cache))
    assert "Free space there, or use another --local-directory" in line
    assert "failed: b\n" in output
    assert (repo / "c.txt").is_file()


@pytest.mark.slow
def test_a_worker_without_space_for_a_clone_is_refused_and_others_do_its_work(repo: Path) -> None:
    disk = repo.parent / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only the superuser can mount a small disk")
    try:
        with cluster(repo.parent, (), ("--local-directory", str(disk))) as (scheduler, _):
            wait_for(disk / "dask-scratch-space" / "global.lock", empty=True)
            with suppress(OSError), (disk / "filler").open("wb") as file:
                file.write(bytes(2**20))
            output = run(repo, *command(scheduler))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert f"is refused: no space left on {platform.node()} ({disk}" in output
    assert "has 0 MiB free)" in output
    assert_finished(repo)


@pytest.mark.slow
def test_a_training_moves_with_its_last_epoch_when_its_worker_is_killed(repo: Path) -> None:
    (repo / "training.py").write_text(TRAINING)
    stage = {"cmd": f"{sys.executable} training.py", "deps": ["training.py"], "outs": ["t.txt"]}
    (repo / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"t": stage}}))
    commit(repo)
    with cluster(repo.parent, ("--no-nanny",), ("--no-nanny",)) as (scheduler, workers):
        (marks(repo) / "hold-t").touch()
        head = start(repo, *command(scheduler))
        while not ran(repo, "t"):
            assert head.poll() is None
            time.sleep(0.1)
        process, where = ran(repo, "t")[0].split()
        first = int("worker1" in where)
        workers[first].kill()
        workers[first].wait()  # else the killed process still has an id, and the training does not end
        end = time.monotonic() + 60
        while is_alive(int(process)):  # the training ends with its worker
            assert time.monotonic() < end
            time.sleep(0.1)
        (marks(repo) / "hold-t").unlink()
        output, _ = head.communicate(timeout=600)
    assert head.returncode == 0, output
    (line,) = ran(repo, "t")[1:]
    assert f"worker{1 - first}" in line, "it runs in the clone of the other worker"
    lines = [line for line in output.splitlines() if line.startswith("t | ")]
    assert [line for line in lines if "resuming" in line] == ["t | resuming after epoch 2"]
    epochs = [found[1] for line in lines if (found := re.match(r"t \| epoch (\d+)", line))]
    assert epochs == ["1", "2", "3", "4"], "no epoch is computed twice"
    plain = repo.parent / "plain"
    run(repo.parent, "git", "clone", "--quiet", str(repo), str(plain))
    run(plain, "dvc", "repro", "--quiet")
    assert (repo / "t.txt").read_bytes() == (plain / "t.txt").read_bytes()
    assert not list((repo / "tmp" / "resume").iterdir())


@pytest.mark.slow
def test_a_worker_without_the_resource_never_gets_such_a_cell(repo: Path) -> None:
    (repo.parent / "resources.yaml").write_text("b: {GPU: 1}\nc: {GPU: 1}\nd: {GPU: 1}\n")
    with cluster(repo.parent, (), ("--resources", "GPU=1")) as (scheduler, _):
        run(repo, *command(scheduler, "--resources", str(repo.parent / "resources.yaml")))
    assert all("worker1" in ran(repo, name)[0] for name in "bcd")


@pytest.mark.slow
def test_two_heads_on_one_cache_do_not_damage_it(repo: Path) -> None:
    other = repo.parent / "other"
    run(repo.parent, "git", "clone", "--quiet", str(repo), str(other))
    (other / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {repo / '.dvc' / 'cache'}\n")
    with cluster(repo.parent, (), ()) as (scheduler, _):
        heads = [start(folder, *command(scheduler)) for folder in (repo, other)]
        for head in heads:
            output, _ = head.communicate(timeout=600)
            assert head.returncode == 0, output
    assert_finished(repo)
    locks = [yaml.safe_load((folder / "dvc.lock").read_text()) for folder in (repo, other)]
    assert locks[0] == locks[1]


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"needs the package distributed\. Run `make extras`"), connected("", 1):
        pass


def test_other_versions_and_other_caches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe").write_text("text")
    good = Run("", "0" * 40, str(tmp_path), ("probe", "text"), {}, "", "", {}, "1")

    def reason(**changes: Any) -> str:
        return refusal(replace(good, **changes), tmp_path / "clones")

    assert "has Python" in reason(python="2.7.1")
    assert reason(packages={"torch": "0.1"}).endswith(", on the head 0.1. Run `make extras` on the head's commit")
    assert "no-such-package is missing, on the head 1.0" in reason(packages={"no-such-package": "1.0"})
    for changes in (
        {"probe": ("probe", "of another run")},
        {"probe": ("other", "")},
        {"cache": "/no/such/folder"},
    ):
        assert "is another folder than on the head. Mount the head's cache there" in reason(**changes)
    assert "cannot get commit 0000000000" in reason()
    monkeypatch.setattr(Path, "touch", lambda _: os.open("/dev/full/x", os.O_CREAT))
    assert f"{tmp_path} cannot be written (Not a directory). Check the rights and the space there" in reason()


def test_a_disk_without_space_for_a_clone_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether git reports it or the system."""
    (tmp_path / "probe").write_text("text")
    good = Run("", "0" * 40, str(tmp_path), ("probe", "text"), {}, "", "", {}, "1")
    wanted = rf"no space left on {platform.node()} \({tmp_path}\S* has \d+ MiB free\)\. Free space there, or use"

    def git(folder: Path, *arguments: str) -> None:
        raise subprocess.CalledProcessError(128, "git", stderr="fatal: a: No space left on device\nwarning: b\n")

    with monkeypatch.context() as patch:
        patch.setattr(dask_worker, "_git", git)
        assert re.match(wanted, refusal(good, tmp_path / "clones"))

    def mkdir(path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert re.match(wanted, refusal(good, tmp_path / "other"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("train: 1", "got train: 1. Use a line such as `train: {GPU: 1}`"),
        ("[train]", "got ['train']: None"),
        ("trian: {GPU: 1}", "trian is no stage of dvc.yaml. Use one of attack, train"),
        ("{", "Set RESOURCES to a YAML file"),
    ],
)
def test_a_wrong_file_of_resources_is_refused(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "resources.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(found)):
        read_resources(str(path), {"train@a": set(), "attack@b": set()})
    with pytest.raises(UserError, match="No such file"):
        read_resources(str(tmp_path / "none"), {})
    path.write_text("train: {GPU: 1}")
    assert read_resources(str(path), {"train@a": set()}) == {"train": {"GPU": 1}}
    assert read_resources("", {}) == {}


def refused(repo: Path, scheduler: str, *options: str) -> str:
    """What a head says that cannot run anything."""
    output = run(repo, *command(scheduler, *options), code=1)
    assert not [name for name in STAGES if ran(repo, name)]
    return output


@pytest.mark.slow
def test_a_worker_with_other_packages_is_refused(repo: Path) -> None:
    other = repo.parent / "packages" / "pyyaml-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pyyaml\nVersion: 0.1\n")
    (repo / "requirements.lock").write_text("pyyaml==6.0\n")
    commit(repo)
    path = ENVIRONMENT["PYTHONPATH"]
    ENVIRONMENT["PYTHONPATH"] = f"{other.parent}{os.pathsep}{path}"
    try:
        with cluster(repo.parent, ()) as (scheduler, _):
            ENVIRONMENT["PYTHONPATH"] = path
            output = refused(repo, scheduler)
            assert "is refused: pyyaml is 0.1, on the head" in output
            assert "no worker can take part" in output
    finally:
        ENVIRONMENT["PYTHONPATH"] = path


@pytest.mark.slow
def test_a_commit_that_the_worker_cannot_get_is_refused(repo: Path) -> None:
    elsewhere = repo.parent / "elsewhere"
    shutil.copytree(repo, elsewhere)
    commit(repo)
    with cluster(repo.parent, ()) as (scheduler, _):
        assert "is refused: cannot get commit" in refused(repo, scheduler, "--repository", str(elsewhere))


@pytest.mark.slow
def test_uncommitted_changes_and_no_scheduler_are_refused(repo: Path) -> None:
    assert "nothing answers at tcp://127.0.0.1:9" in refused(repo, "tcp://127.0.0.1:9")
    (repo / "cell.py").write_text(f"{CELL}\n# edited")
    output = refused(repo, "")
    assert "has uncommitted changes (M cell.py). Commit them first; workers run the last commit" in output
