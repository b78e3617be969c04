"""`kill -9` in tune, train and adv_train, then the same command again: the same results, to the bit."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.training.conftest import Workspace

pytestmark = pytest.mark.slow


def kill_when(space: Workspace, stage: str, word: str, delay: float = 0.0) -> str:
    """Start a stage, kill it `delay` seconds after it prints a line with `word`, and give what it printed."""
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


def test_killed_stages_end_as_undisturbed_ones(root: Path, tmp_path: Path) -> None:
    whole, cut = Workspace(tmp_path / "whole", root), Workspace(tmp_path / "cut", root)
    for stage in ("settings", "tune", "train", "adv_train"):
        whole.run(stage)
    cut.run("settings")
    kill_when(cut, "tune", "b trial")  # before the first epoch
    kill_when(cut, "tune", "epoch 1/2", delay=0.05)  # about when the state is written
    kill_when(cut, "tune", "b trial", delay=0.4)
    cut.run("tune")
    kill_when(cut, "train", "epoch 1/3")
    kill_when(cut, "train", "epoch 3/3")  # everything trained, nothing written
    assert "resuming after epoch" in cut.run("train")
    kill_when(cut, "adv_train", "epoch 2/3", delay=0.1)
    assert "resuming after epoch" in cut.run("adv_train")
    one, other = whole.results(), cut.results()
    assert set(one) == set(other)
    assert [name for name in one if one[name] != other[name]] == []
    assert any(name.endswith("adv/model.safetensors") for name in one)
    assert not list((cut.folder / "tmp" / "resume").glob("*.pt")), "state stayed behind"
