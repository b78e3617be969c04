"""A small DVC repository whose stages write like those of dvc.yaml: cells into folders on which others depend."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.clones import IDENTITY
from tests.params import preset, save

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    **IDENTITY,
}
#: What `download` runs: it copies data.path and records its hash; first it waits while there is a file `hold`.
DOWNLOAD = """
import os, time
from pathlib import Path
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage
from medrobust.data.prepare import download
def main():
    Path("tmp/started").write_text(str(os.getpid()))
    while Path("hold").exists():
        time.sleep(0.05)
    download(load_params().data, Path("data/raw"), 1)
run_stage(main, "download")
"""
STAGES: dict[str, Any] = {
    "download": {"cmd": f"{sys.executable} download.py", "params": ["data.path"], "outs": ["data/raw"]},
    "prepare": {
        "cmd": "mkdir -p data/prepared && ls -R data/raw > data/prepared/list.txt && cat data/raw/*/*/* >> "
        "data/prepared/list.txt",
        "deps": ["data/raw"],
        "outs": ["data/prepared"],
    },
    "train": {
        "matrix": {"backbone": "${models}"},
        "cmd": "mkdir -p data/checkpoints/${item.backbone}/clean metrics/train && echo ${item.backbone} > "
        "data/checkpoints/${item.backbone}/clean/model && echo '{}' > metrics/train/${item.backbone}.json",
        "deps": ["data/prepared"],
        "outs": ["data/checkpoints/${item.backbone}/clean"],
        "metrics": [{"metrics/train/${item.backbone}.json": {"cache": False}}],
    },
    "ensemble": {
        "cmd": "ls data/checkpoints > data/ensemble.txt && echo '{\"a\": 1}' > metrics/ensemble.json",
        "deps": ["data/checkpoints", "data/prepared"],
        "outs": ["data/ensemble.txt"],
        "metrics": [{"metrics/ensemble.json": {"cache": False}}],
    },
    "report": {"cmd": "ls -R metrics > report.txt", "deps": ["metrics"], "outs": ["report.txt"]},
}


def run(folder: Path, *command: str, code: int | None = 0) -> str:
    """What a command prints in the repository; it has to end with `code`, if that is not None."""
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert code is None or done.returncode == code, done.stdout
    return done.stdout


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command in the repository; its output is one text."""
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def repro(folder: Path, *options: str) -> str:
    """What `make repro` prints."""
    return run(folder, sys.executable, "-m", "tools.repro", *options)


def ran(output: str) -> set[str]:
    """The stages that `make repro` has run or restored."""
    return {line.split(" | ")[0] for line in output.splitlines() if " | done in" in line}


def commit(folder: Path) -> None:
    """Commit all files, also if none has changed."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message", "a state")


def set_params(folder: Path, backbones: list[str], path: Path) -> None:
    """Write params.yaml for some backbones and data at a path."""
    params = preset("smoke")
    (block,) = params["models"].values()
    params["models"] = {name: {**block, "explain": False, "detect": [], "corrupt": False} for name in backbones}
    params["data"] |= {"source": "archive", "path": str(path), "phantom": None}
    save(folder, params)


def make(folder: Path, backbones: list[str]) -> Path:
    """Make the repository, with data beside it, and commit it; where the data are."""
    images = folder.parent / f"{folder.name}-images"
    for name in ("a/1.png", "b/2.png"):
        (images / name).parent.mkdir(parents=True)
        (images / name).write_text(name)
    folder.mkdir()
    (folder / "download.py").write_text(DOWNLOAD)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    ignored = (ROOT / ".dvcignore").read_text()
    (folder / ".gitignore").write_text(f"/data\n/report.txt\n/tmp\n/hold\n{ignored}")
    set_params(folder, backbones, images)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    (folder / ".dvcignore").write_text(ignored)
    commit(folder)
    return images
