"""The `python` of clones runs a script as Python does, and gives its output, exit code and messages."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medrobust.core.disk import is_alive
from tests.warm_python import warm_python

pytestmark = pytest.mark.slow
SCRIPT = """
import os, sys, helper
print(sys.argv, __name__, os.getcwd(), os.environ["COLOUR"], "torch" in sys.modules, "medrobust" in sys.modules)
print(sys.stdin.read(), file=sys.stderr)
if sys.argv[1] == "raise":
    raise ValueError("a message")
sys.exit({"text": "a text", "3": 3, "none": None}[sys.argv[1]])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script and a module that lies on PYTHONPATH."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "helper.py").write_text("")
    return tmp_path


def run(folder: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a `python` in the folder, with its module on PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "sources"), "COLOUR": "green"}
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=environment,
        input="hello",
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_script_ends_as_under_python(folder: Path) -> None:
    warm = str(Path(warm_python()) / "python")
    for argument in ("text", "3", "none", "raise"):
        expected, found = (run(folder, python, "script.py", argument) for python in (sys.executable, warm))
        assert found.returncode == expected.returncode
        assert found.stdout == expected.stdout.replace("green False False", "green True False")
        assert found.stderr.splitlines()[0] == "hello"
        assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_other_commands_and_more_threads_are_for_the_real_python(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = str(Path(warm_python()) / "python")
    assert run(folder, warm, "-c", "import sys; print('torch' in sys.modules)").stdout == "False\n"
    monkeypatch.setenv("MEDROBUST_THREADS", "2")
    assert "green False False" in run(folder, warm, "script.py", "none").stdout


def test_a_stage_ends_with_the_process_that_dvc_started(folder: Path) -> None:
    """DVC kills the process that it knows, which is not the one that computes."""
    (folder / "wait.py").write_text(
        "import os, time\nfrom pathlib import Path\nfrom medrobust.core.ending import early_end\n"
        "with early_end():\n    Path('pid').write_text(str(os.getpid()))\n    time.sleep(300)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("src"))}
    client = subprocess.Popen([str(Path(warm_python()) / "python"), "wait.py"], cwd=folder, env=environment)
    end = time.monotonic() + 100
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    client.kill()
    client.wait()
    while is_alive(int((folder / "pid").read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)
