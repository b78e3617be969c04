"""A killed evaluation resumes by image; several processes give the same result as one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medrobust.attacks.engine import evaluate as engine
from medrobust.attacks.engine.attempts import table_of
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.resume import ResumeFolder, resume_folder
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.records import atomic_file
from medrobust.data.store import Subset

ROOT = Path(__file__).resolve().parents[2]
SUITE = resolve_suite(
    "s",
    SuiteParams(
        norm="Linf",
        eps=[0.02, 0.1, 0.3],
        attacks=[{"name": "pgd", "steps": 4}, {"name": "square", "queries": 10}],
    ),
)

#: An evaluation in a process of its own, with a model that is slow.
SCRIPT = """
import sys, time
import numpy as np, torch
from pathlib import Path
from torch import nn
from medrobust.attacks.engine import evaluate as engine
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.resume import resume_folder
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.data.store import Subset
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.runtime import process_number

class Slow(nn.Sequential):
    def forward(self, images):
        time.sleep(float(sys.argv[2]))
        return super().forward(images)

torch.manual_seed(0)
rng = np.random.default_rng(0)
model = Slow(nn.Flatten(), nn.Linear(64, 3)).eval()
ids = np.array([f"i{k}" for k in range(24)])
pixels = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
subset = Subset(pixels, np.arange(24), np.arange(24) % 3, ids, ids, ["a"])
attacks = [{"name": "pgd", "steps": 4}, {"name": "square", "queries": 10}]
suite = resolve_suite("s", SuiteParams(norm="Linf", eps=[0.005, 0.02], attacks=attacks))
engine.FLUSH = 0.0
resume = resume_folder(model, subset, suite, seed=0, bit_depth=8)
table = attack_suite(model, subset, suite, seed=0, batch_size=4, resume=resume)
if process_number() == 0:
    table.to_parquet(sys.argv[1])
"""


def command(folder: Path, out: str, pause: float, *launcher: str) -> list[str]:
    (folder / "evaluate.py").write_text(SCRIPT)
    return [sys.executable, *launcher, str(folder / "evaluate.py"), str(folder / out), str(pause)]


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Check that tables are equal, up to the rounding of other batch sizes."""
    pd.testing.assert_frame_equal(left, right, atol=1e-6, rtol=1e-5)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def parts_below(folder: Path) -> list[Path]:
    """Complete files that evaluations in `folder` have written."""
    return [part for path in (folder / "tmp" / "resume").glob("*") for part in ResumeFolder(path).parts()]


@pytest.mark.slow
def test_a_killed_run_resumes_by_image(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(command(whole, "table.parquet", 0), cwd=whole, env=environment(), check=True, timeout=100)
    killed = subprocess.Popen(command(tmp_path, "table.parquet", 0.02), cwd=tmp_path, env=environment())
    deadline = time.monotonic() + 60
    while len(parts_below(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    done = {name for part in parts_below(tmp_path) for name in pd.read_parquet(part)["id"]}
    assert 0 < len(done) < 24
    again = command(tmp_path, "table.parquet", 0)
    output = subprocess.run(
        again, cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True, timeout=100
    )
    assert f"resuming: {len(done)} images are already finished" in output.stdout
    assert_same(pd.read_parquet(tmp_path / "table.parquet"), pd.read_parquet(whole / "table.parquet"))


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path, "one.parquet", 0), cwd=tmp_path, env=environment(), check=True, timeout=100)
    for part in parts_below(tmp_path):
        part.unlink()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = command(tmp_path, "two.parquet", 0, *launcher)
    subprocess.run(two, cwd=tmp_path, env=environment(), check=True, timeout=100)
    processes = {part.stem.split("-")[1] for part in parts_below(tmp_path)}
    assert len(processes) == 2, "the images were not shared"
    assert_same(pd.read_parquet(tmp_path / "two.parquet"), pd.read_parquet(tmp_path / "one.parquet"))


def test_finished_images_are_not_attacked_again(
    trained: nn.Module, subset: Subset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FLUSH", 0.0)
    resume = ResumeFolder(tmp_path / "state")
    whole = attack_suite(trained, subset, SUITE, seed=0, batch_size=5, resume=resume)
    parts = resume.parts()
    assert len(parts) > 2
    parts[1].unlink()
    missing = set(subset.ids) - set(resume.load()["id"])
    assert missing
    sizes = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = trained

        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            logits: Tensor = self.inner(images)
            return logits

    again = attack_suite(Watched(), subset, SUITE, seed=0, batch_size=40, resume=resume)
    assert max(sizes) <= len(missing)
    assert_same(again, whole)
    resume.clear()
    assert not resume.folder.exists()


def test_an_interrupted_write_is_not_loaded(tmp_path: Path) -> None:
    resume = ResumeFolder(tmp_path)
    resume.save(table_of([]))
    complete = resume.parts()
    with atomic_file(tmp_path / "000001-7.parquet") as cut:
        cut.write_bytes(b"PAR1")
        assert list(tmp_path.glob("*.parquet")) != complete
        assert resume.parts() == complete
        assert resume.load().empty


def test_two_runs_may_evaluate_the_same_at_once(trained: nn.Module, subset: Subset, tmp_path: Path) -> None:
    """Two queued runs: each image counts once, and the end of one run does not disturb the other's write."""
    resume = ResumeFolder(tmp_path / "state")
    attack_suite(trained, subset, SUITE, seed=0, resume=resume)
    (part,) = resume.parts()
    shutil.copy(part, part.with_name("000001-7.parquet"))
    pd.testing.assert_frame_equal(resume.load(), pd.read_parquet(part))
    with atomic_file(resume.folder / "000002-8.parquet") as writing:
        writing.write_bytes(b"PAR1")
        (resume.folder / ".000003-9.999999999.tmp.parquet").write_bytes(b"cut")
        resume.clear()
        assert list(resume.folder.iterdir()) == [writing]
    resume.clear()
    assert not resume.folder.exists()


def test_the_folder_depends_on_everything_that_decides_the_result(trained: nn.Module, subset: Subset) -> None:
    reference = resume_folder(trained, subset, SUITE, seed=0, bit_depth=8).folder
    assert resume_folder(trained, subset, SUITE, seed=0, bit_depth=8).folder == reference
    assert resume_folder(trained, subset, SUITE, seed=1, bit_depth=8).folder != reference
    assert resume_folder(trained, subset, {**SUITE, "eps": [0.02]}, seed=0, bit_depth=8).folder != reference
    part = Subset(
        subset.store_images, subset.rows[1:], subset.labels[1:], subset.ids[1:], subset.patients[1:], ["a"]
    )
    assert resume_folder(trained, part, SUITE, seed=0, bit_depth=8).folder != reference
    assert resume_folder(trained, subset, SUITE, seed=0, bit_depth=8, train=part).folder != reference
    with torch.no_grad():
        next(trained.parameters()).view(-1)[0] += 1e-3
    assert resume_folder(trained, subset, SUITE, seed=0, bit_depth=8).folder != reference
