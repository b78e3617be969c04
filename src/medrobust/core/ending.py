"""How a stage ends early: signals become exceptions, and it ends with the processes that started it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from medrobust.core.disk import is_alive

#: Numbers of processes, joined by `:`, with which a stage ends; set for it by whoever starts it.
PARENTS = "MEDROBUST_PARENTS"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SHELLS = {"sh", "dash", "bash", "zsh", "ksh", "fish"}
#: Seconds between two looks at the parents, and after a signal until the process ends without cleaning up.
INTERVAL, GRACE = 0.5, 20.0


@contextmanager
def early_end() -> Iterator[None]:
    """Let signals end this process by SystemExit, and the end of its parents by SIGTERM."""
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _exit)
    # Only of a process that DVC or torchrun started: a shell may end before what was started in it.
    parent = os.getppid() if {"DVC_STAGE", "RANK"} & os.environ.keys() else None
    others = [int(number) for number in os.environ.get(PARENTS, "").split(":") if number]
    if parent and (above := _above_shell(parent)):
        others.append(above)
    if parent or others:
        threading.Thread(target=_watch, args=(parent, others), daemon=True).start()
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def children_environment() -> dict[str, str]:
    """The environment of a child process that is to end with this one."""
    known = os.environ.get(PARENTS)
    return {**os.environ, PARENTS: f"{known}:{os.getpid()}" if known else str(os.getpid())}


def _exit(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:  # a second signal ends it at once
        signal.signal(other, signal.SIG_DFL)
    os.write(
        sys.__stderr__.fileno() if sys.__stderr__ else 2, f"ended by {signal.Signals(number).name}\n".encode()
    )
    sys.exit(128 + number)


def _above_shell(process: int) -> int | None:
    """The parent of a process that is a shell; None of any other. Many shells become the command that they run."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")  # PID (NAME) STATE PARENT ...
    except OSError:  # it has ended, or the system has no /proc
        return None
    name, _, rest = text.partition(" (")[2].rpartition(") ")
    return int(rest.split()[1]) if name in SHELLS else None


def _watch(parent: int | None, others: list[int]) -> None:
    while (parent is None or os.getppid() == parent) and all(map(is_alive, others)):
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)  # the main thread may be in a long computation outside Python
    os._exit(1)
