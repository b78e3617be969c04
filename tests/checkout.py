"""A copy of the working tree for tests that run it elsewhere."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What a run has written, and the params that it was made with.
NOT_COPIED = ("metrics/", "plots/", "dvc.lock", "params.yaml")


def copy_checkout(folder: Path) -> None:
    """Copy the files that git tracks or could add, without results and params.yaml."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file() and not name.startswith(NOT_COPIED):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
