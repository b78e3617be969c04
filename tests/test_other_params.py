"""The tests pass whatever a team commits as params.yaml: a preset, or a file that DVC has written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from tests.checkout import ROOT, copy_checkout
from tools.preset import names, render
from tools.replay import studies


def test_a_test_without_the_mark_cannot_read_the_live_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in ("params.yaml", ROOT / "params.yaml"):
        with pytest.raises(AssertionError, match="only tests marked `live_params`"):
            Path(path).read_text()
    assert (ROOT / "presets" / "default.yaml").read_text()


@pytest.mark.live_params
def test_a_test_with_the_mark_can_read_the_live_file() -> None:
    assert (ROOT / "params.yaml").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree without its results and its params."""
    folder = tmp_path_factory.mktemp("clone")
    copy_checkout(folder)
    return folder


#: The presets of studies differ from the others only in values, and each would take as long as the others.
OTHERS = [name for name in names() if name.removesuffix("-cpu") not in studies()]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHERS, "written by DVC"])
def test_other_parameters_fail_no_test(name: str, clone: Path) -> None:
    """The tests that read params.yaml run; no other one, and no module of tests, can depend on it."""
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    if name in names():
        command = [sys.executable, "-m", "tools.preset", name, "--force"]
        subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
    else:
        (clone / "params.yaml").write_text(render())
        apply_overrides(clone / "params.yaml", ["adv.eps=0.005", "seed=3"])
        subprocess.run([sys.executable, "-m", "tools.artifacts"], cwd=clone, env=environment, check=True)
    files = [str(path) for path in (clone / "tests").rglob("test_*.py") if "mark.live_params" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "live_params", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "3 passed" in done.stdout
