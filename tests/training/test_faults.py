"""After `kill -9` in tune, train and adv_train, the same command again gives bit-equal results."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.training.conftest import BACKBONE, Workspace

pytestmark = pytest.mark.slow


def kill_when(space: Workspace, stage: str, word: str, delay: float = 0.0) -> str:
    """Start a stage, kill it `delay` seconds after it prints a line with `word`, and return its output."""
    process = subprocess.Popen(
        space.command(stage), cwd=space.folder, env=space.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            time.sleep(delay)
            break
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    code = process.wait()
    assert code == -signal.SIGKILL, f"{stage} ended before {word!r}: {''.join(seen)[-1500:]}"
    return "".join(seen)


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which all stages ran without interruption."""
    space = Workspace(tmp_path_factory.mktemp("faults") / "whole", root)
    for stage in ("settings", "tune", "train", "adv_train"):
        space.run(stage)
    return space


#: Per stage the output lines after which it is killed, in order, and the seconds to wait after each line.
KILLS = {
    # Before the first epoch of a trial, about when its state is written, and in the next trial.
    "tune": [(f"{BACKBONE} trial", 0.0), ("epoch 1/2", 0.05), (f"{BACKBONE} trial", 0.4)],
    # After the first epoch; when training has finished and nothing is written yet.
    "train": [("epoch 1/3", 0.0), ("epoch 3/3", 0.0)],
    "adv_train": [("epoch 1/3", 0.1), ("epoch 2/3", 0.0)],
}


@pytest.mark.parametrize("stage", KILLS)
def test_a_killed_stage_ends_like_an_uninterrupted_one(whole: Workspace, stage: str, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "cut")
    cut = Workspace(tmp_path / "cut", whole.root, images=False)
    for out in cut.outs(stage):  # DVC deletes outs before it runs a stage
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    shutil.rmtree(cut.folder / "tmp")
    for word, delay in KILLS[stage]:
        kill_when(cut, stage, word, delay)
    output = cut.run(stage)
    assert "resuming after epoch" in output or stage == "tune"
    one, other = whole.results(), cut.results()
    assert set(one) == set(other)
    assert [name for name in one if one[name] != other[name]] == []
    assert not list((cut.folder / "tmp" / "resume").glob("*.pt")), "a resume file is left"
