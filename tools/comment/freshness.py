"""Whether the results that a commit holds belong to its params and code, found without any of its data."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medrobust.report.provenance import Provenance
from tools.git_calls import git

#: What a pull request must touch to change a result, or the claim to have it.
INPUTS = ("params.yaml", "dvc.yaml", "dvc.lock", "metrics", "plots", "src", "stages", "requirements.lock")


@contextmanager
def checkout(root: Path, revision: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, beside the working tree."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "checkout"
        git(root, "worktree", "add", "--quiet", "--detach", str(folder), revision)
        try:
            yield folder
        finally:
            git(root, "worktree", "remove", "--force", str(folder))


def outdated(folder: Path) -> dict[str, str] | None:
    """Stages whose results would be others now, with the reason, in a `checkout` without DVC's data.

    Only what git holds is compared: commands, params, code, metrics and plots, and what dvc.lock says of outputs.
    None if nothing can be said: there is no dvc.lock, or the code of that commit cannot be hashed.
    """
    if not (folder / "dvc.lock").is_file():
        return None
    hashed = subprocess.run(
        ["dvc", "repro", "code"], cwd=folder, check=False, capture_output=True, encoding="utf-8"
    )
    if hashed.returncode:
        sys.stderr.write(hashed.stdout + hashed.stderr)
        return None
    provenance = Provenance.of(folder / "dvc.lock")
    if provenance is None:
        return None
    found = {}
    for stage in provenance.graph:
        written = [out for out in stage.outs if not out.use_cache and out.workspace_status()]
        reason = provenance.outdated(stage) or (f"{written[0].def_path} is not what it wrote" if written else None)
        if reason:
            found[str(getattr(stage, "name", stage.addressing))] = reason
    return found


def touches_results(root: Path, base: str, head: str) -> bool:
    """Whether two commits differ in anything that decides results, or in the results themselves."""
    return bool(git(root, "diff", "--name-only", base, head, "--", *INPUTS))
