"""How a stage ends early: by an exception when it gets a signal, or when a process that started it ends."""

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

#: Ids of processes, joined by `:`. If one of them ends, the stage ends. Set by the process that starts the stage.
PARENTS = "MEDROBUST_PARENTS"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SHELLS = {"sh", "dash", "bash", "zsh", "ksh", "fish"}
#: Seconds between two checks of the parents, and from a signal to the end of the process without cleaning up.
INTERVAL, GRACE = 0.5, 20.0


@contextmanager
def early_end() -> Iterator[None]:
    """End this process by SystemExit when it gets a signal; send it SIGTERM when one of its parents ends."""
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _exit)
    # Only if DVC or torchrun started this process: a shell may end before the commands that it started.
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
    """The environment for a child process that should end when this one ends."""
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
    """The parent of `process` if that is a shell, else None. Many shells replace themselves by their command."""
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
