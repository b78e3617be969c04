"""Cells of the real pipeline on Dask workers give the bytes that `dvc repro` gives."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.clones import smoke_run
from tests.tools.toy import ENVIRONMENT

pytest.importorskip("distributed")
from tools.dask_head import Plan, connected, head
from tools.dvc_calls import in_repo
from tools.order import run_in_order
from tools.repro import CHEAP, all_needs, reproduce


@pytest.mark.slow
def test_real_cells_give_the_same_bytes_on_two_workers(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A training, an attack and a detector of the smoke preset, against the run that `dvc repro` has made."""
    folder = tmp_path_factory.mktemp("dask") / "medrobust"
    smoke_run(tmp_path_factory, folder)
    before, lock = contents(folder), yaml.safe_load((folder / "dvc.lock").read_text())
    cells = {"adv_train@resnet10t", "attack@resnet10t-clean-pgd", "detect@resnet10t-clean"}
    forget(folder, cells)
    assert before.keys() - contents(folder).keys()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    plan = Plan(in_repo(all_needs), reproduce, CHEAP, jobs=1, resources={})
    with connected("", 2) as client, head(client, plan) as started:
        assert run_in_order({name: set() for name in cells}, started.start) == []
    lines = capfd.readouterr().out.splitlines()
    assert {line.partition(" | ")[0] for line in lines if " | > python stages/" in line} == cells
    assert contents(folder) == before
    assert yaml.safe_load((folder / "dvc.lock").read_text()) == lock


def forget(folder: Path, cells: set[str]) -> None:
    """Remove cells from dvc.lock and from DVC's run cache, and their results from the folder."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    entries = [lock["stages"].pop(name) for name in cells]
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    runs = folder / ".dvc" / "cache" / "runs"
    for path in runs.glob("*/*/*"):
        if yaml.safe_load(path.read_text())["cmd"] in {entry["cmd"] for entry in entries}:
            path.unlink()
    for path in [*runs.glob("*/*"), *runs.glob("*")]:  # DVC cannot read a folder that is empty
        if not any(path.iterdir()):
            path.rmdir()
    for path in (folder / out["path"] for entry in entries for out in entry["outs"]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all results but the lock."""
    files = [path for top in ("metrics", "plots", "data", "models") for path in (folder / top).rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}
