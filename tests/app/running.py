"""`medrobust app` in a process of its own, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

#: Imported by Python at its start: notes every address that the process looks up or connects to.
WATCH = """
import os, sys
open(os.environ["CALLS"], "a").close()
def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(os.environ["CALLS"], "a") as file:
            file.write(f"{event} {args[1] if event == 'socket.connect' else args[0]}\\n")
sys.addaudithook(note)
"""


@dataclass
class RunningApp:
    """A running app: its address, and the folder that is its home and holds its temporary files."""

    process: subprocess.Popen[str]
    address: str
    home: Path

    @property
    def temporary(self) -> Path:
        return self.home / "tmp"

    def calls(self) -> list[str]:
        """The addresses that the process looked up or connected to."""
        return (self.home / "calls.txt").read_text().splitlines()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running_app(home: Path, *arguments: str) -> Iterator[RunningApp]:
    """The app with these arguments, on any free port, ready to be opened."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    (home / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {
        "HOME": str(home), "TMPDIR": str(home / "tmp"), "CALLS": str(home / "calls.txt"),
        "PYTHONPATH": os.pathsep.join([str(home), str(ROOT / "src")]),
    }  # fmt: skip
    command = [sys.executable, "-m", "medrobust", "app", *arguments, "--port", "0"]
    with (home / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield RunningApp(process, found[0], home)
                break
        else:
            raise AssertionError("".join(lines) + (home / "errors.txt").read_text())
    finally:
        process.kill()
        process.wait()
