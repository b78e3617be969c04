"""A pipeline of three stages in a git repository, and commands in it."""

import subprocess
from pathlib import Path

PIPELINE = """stages:
  code:
    cmd: cp source code
    deps: [source]
    outs: [code]
  made:
    cmd: cp code made && cp code metric.json
    deps: [code]
    params: [a]
    outs: [made]
    metrics: [metric.json: {cache: false}]
  after:
    cmd: cp made after
    deps: [made]
    outs: [after]
"""


def run(folder: Path, *command: str) -> None:
    names = ("-c", "user.name=t", "-c", "user.email=t@t") if command[0] == "git" else ()
    subprocess.run([command[0], *names, *command[1:]], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "x")


def finished(folder: Path) -> Path:
    """The pipeline in a new folder, run and committed; its outs are only in the cache."""
    folder.mkdir()
    for name, text in (("dvc.yaml", PIPELINE), ("params.yaml", "a: 1\n"), ("source", "{}"), ("README.md", "")):
        (folder / name).write_text(text)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        run(folder, *command)
    commit(folder)
    return folder
