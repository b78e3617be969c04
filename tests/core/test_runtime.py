"""Stages end with one message, wait for their lock, and show progress on a pipe."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medrobust.core import runtime
from medrobust.core.errors import UserError

STAGE = """
import time
from medrobust.core.errors import UserError
from medrobust.core.runtime import run_stage, say
def main():
    {body}
run_stage(main, "cell")
"""


def run(folder: Path, body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STAGE.format(body=body)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stage_runs_by_the_sources_that_lie_beside_it(tmp_path: Path) -> None:
    """As in DVC's copy of the workspace: the environment knows another copy of the package."""
    package = Path(runtime.__file__).parent.parent
    copy = tmp_path / "src" / "medrobust"
    for name in ("__init__.py", *(f"core/{path.name}" for path in (package / "core").glob("*.py"))):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / name, copy / name)
    (tmp_path / "stage.py").write_text(STAGE.format(body="import medrobust; say(medrobust.__file__)"))
    elsewhere = str(package.parent)
    environment = {**os.environ, "PYTHONPATH": elsewhere}
    command = [sys.executable, "stage.py", "--out", "a b"]
    found = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True, timeout=60)
    assert found.strip() == str(copy / "__init__.py")
    shutil.rmtree(tmp_path / "src")
    found = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True, timeout=60)
    assert found.strip() == str(Path(elsewhere) / "medrobust" / "__init__.py")


FAULTS = """
import resource
import numpy as np
from medrobust.core import runtime
{first}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def batch():
    [np.ones(2**21, np.uint8) for _ in range(16)]  # activations: freed together, wanted again at once
batch()
before = faults()
for _ in range(20):
    batch()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_of_one_batch_serves_the_next() -> None:
    page = resource.getpagesize()
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(first=first)]))
        for first in ("", "runtime.keep_memory()")
    )
    assert kept < 16 * 2**21 / page < given_back


def test_a_user_error_is_one_message_and_exit_1(tmp_path: Path) -> None:
    stage = run(tmp_path, 'raise UserError("x.zip", "truncated", "Fetch it again")')
    _, err = stage.communicate(timeout=60)
    assert stage.returncode == 1
    assert err.strip() == "cell: x.zip: truncated. Fetch it again"


def test_the_name_of_a_file_controls_no_terminal(tmp_path: Path) -> None:
    stage = run(tmp_path, r'raise UserError("a\x1b[2Kb\x07\udcff.zip", "truncated\n2 lines", "Fetch it again")')
    _, err = stage.communicate(timeout=60)
    assert err.strip() == "cell: a[2Kb\ufffd.zip: truncated\n2 lines. Fetch it again"


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    stage = run(tmp_path, "1 / 0")
    _, err = stage.communicate(timeout=60)
    assert stage.returncode != 0
    assert "Traceback" in err


def test_the_second_process_of_a_cell_waits_for_the_first(tmp_path: Path) -> None:
    first = run(tmp_path, 'say("first"); time.sleep(1.5); open("done", "w").close()')
    assert first.stdout is not None
    assert first.stdout.readline().strip() == "first"
    second = run(tmp_path, 'import os; say("second" if os.path.exists("done") else "too early")')
    out, _ = second.communicate(timeout=60)
    assert (
        out.splitlines()[0]
        == f"cell: process {first.pid} still runs this stage; waiting for it (kill it to go on at once)"
    )
    assert out.splitlines()[1] == "second"


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("MEDROBUST_DEVICE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert runtime.device() == torch.device("cuda:1")
    assert current == [1], "what asks for the current GPU would get the first"
    monkeypatch.setenv("MEDROBUST_DEVICE", "cuda")
    assert runtime.device() == torch.device("cuda:1"), "a GPU is asked for, not the first one"
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setenv("MEDROBUST_DEVICE", "cuda:0")
    assert runtime.device() == current[-1] == torch.device("cuda:0"), "the variable says which"
    monkeypatch.delenv("MEDROBUST_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.device() == torch.device("cpu")


def test_float32_is_float32_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime.device()
    assert not torch.backends.cudnn.allow_tf32


def test_progress_prints_plain_lines_with_a_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "LINE_INTERVAL", 0.0)
    assert list(runtime.progress([1, 2], "reading", unit="images")) == [1, 2]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("reading: 1/2 images, ")
    assert second.endswith("images/s")


def test_progress_is_quiet_when_fast(capsys: pytest.CaptureFixture[str]) -> None:
    list(runtime.progress(range(3), "reading"))
    assert capsys.readouterr().out == ""


def test_an_impossible_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_DEVICE", "warp")
    with pytest.raises(UserError, match="MEDROBUST_DEVICE: 'warp' cannot be used"):
        runtime.device()
    monkeypatch.setenv("MEDROBUST_DEVICE", "cpu")
    assert runtime.device().type == "cpu"


def test_seeding_repeats_draws() -> None:
    import torch

    runtime.seed_everything(3)
    first = torch.rand(4)
    runtime.seed_everything(3)
    assert torch.equal(torch.rand(4), first)


def test_resume_files_of_a_queued_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the pipeline is in a folder below the top of the git repository."""
    for repository in (tmp_path, tmp_path / "sub"):
        for inner in ("tmpabc", "standalone/tmpabc/sub"):
            copy = repository / ".dvc" / "tmp" / "exps" / inner
            copy.mkdir(parents=True)
            monkeypatch.chdir(copy)
            assert runtime.lasting_folder() == repository / "tmp"
    monkeypatch.chdir(tmp_path)
    assert runtime.lasting_folder() == Path("tmp")
