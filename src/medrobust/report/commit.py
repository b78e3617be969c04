"""Which commit's code and params made the page: git is asked, and what differs from the commit is named."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: Changed files that are named one by one; of more, the rest are counted.
NAMED = 5


@dataclass(frozen=True)
class Commit:
    """A commit, its day, and the files whose content in the working tree is another."""

    sha: str
    day: str
    changed: tuple[str, ...]

    def words(self) -> str:
        """One sentence for the page."""
        few = list(self.changed[:NAMED])
        few += [f"{len(self.changed) - NAMED} more"] if len(self.changed) > NAMED else []
        changes = f", with changes in {', '.join(few)}" if few else ""
        return f"Made by the code and params of commit {self.sha} ({self.day}){changes}."


def built_on(root: Path, products: Iterable[str | Path]) -> Commit | None:
    """The commit that is checked out, with what was changed since; None outside of a git repository.

    Args:
        root: of the repository, the folder of dvc.yaml.
        products: paths below root that the pipeline itself writes: no changes of the code, however they differ.
    """
    head = _git(root, "log", "-1", "--format=%H %cs")
    if head is None:
        return None
    sha, day = head.split()
    # -z: paths as they are. Untracked files count: a new module changes results too.
    rows = (_git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all") or "").split("\0")
    written = {Path("dvc.lock"), *map(Path, products)}
    changed = [row[3:] for row in rows if row and not written & {Path(row[3:]), *Path(row[3:]).parents}]
    return Commit(sha, day, tuple(sorted(changed)))


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip("\n")
