"""Calls of git."""

import subprocess
from pathlib import Path

from medrobust.core.errors import UserError


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command without white space at its ends.

    Raises:
        UserError: the command failed, with what git printed.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise UserError(f"git {arguments[0]}", done.stderr.strip(), f"Run it in {folder} to see more")
    return done.stdout.strip()


def clean_commit(folder: Path, remedy: str, *options: str) -> str:
    """The last commit of a repository in which nothing is edited; `options` of `git status` say what is looked at.

    Raises:
        UserError: a file has changed since that commit, with `remedy`.
    """
    if edited := git(folder, "status", "--porcelain", *options):
        found = f"has uncommitted changes ({edited.splitlines()[0].strip()})"
        raise UserError(str(folder), found, remedy)
    return git(folder, "rev-parse", "HEAD")


def file_at(revision: str, path: Path) -> str | None:
    """The text of a file in a commit; None if the commit does not have it, or there is no repository."""
    command, folder = ["git", "show", f"{revision}:./{path.name}"], path.resolve().parent
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8")
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
