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
    """The commit that is checked out, with what was changed since; None where git tells none.

    Args:
        root: the top of the repository, the folder of dvc.yaml; below the top of another, that one's commit says
            nothing of what is here.
        products: paths below root that the pipeline itself writes: no changes of the code, however they differ.
    """
    place, head = _git(root, "rev-parse", "--show-cdup"), _git(root, "log", "-1", "--format=%H %cs")
    # -z: paths as they are. Untracked files count: a new module changes results too.
    status = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    if place != "" or head is None or status is None:
        return None
    sha, day = head.split()
    written = {Path("dvc.lock"), *map(Path, products)}
    paths = [Path(row[3:]) for row in status.split("\0") if row]
    changed = [path.as_posix() for path in paths if not written & {path, *path.parents}]
    return Commit(sha, day, tuple(sorted(changed)))


def _git(root: Path, *words: str) -> str | None:
    """What git prints; None where there is no program, no repository, no commit, or git refuses to look.

    Without optional locks, as others may work in the repository at the same time.
    """
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip("\n")
