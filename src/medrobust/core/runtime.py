"""How a stage runs on the machine at hand: code check, locks, threads, timings, devices, seeds, progress.

Machine settings are environment variables: `MEDROBUST_DEVICE` and `MEDROBUST_THREADS` (README.md),
`MEDROBUST_TORCHRUN` (docs/training.md), `MEDROBUST_PSEUDONYM_KEY` (docs/data.md). `MEDROBUST_PARENTS` is set by
the process that starts a stage (`ending`).
"""

import ctypes
import fcntl
import os
import platform
import random
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from medrobust.core.code import check_code
from medrobust.core.disk import disk_errors
from medrobust.core.ending import children_environment, early_end
from medrobust.core.errors import UserError
from medrobust.core.text import one_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: Seconds between two progress lines where the output is no terminal.
LINE_INTERVAL = 10.0
WORK = Path("tmp")
#: One line per finished stage, with its time; ignored by git and DVC, printed by `make timings`.
TIMINGS = WORK / "timings.csv"


def run_stage(
    main: Callable[[], None],
    cell: str,
    *,
    parallel: bool = False,
    entries: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a stage's `main` under the lock of its cell; a UserError ends it with one message and exit code 1.

    The stage's code is compared with what the stage `code` hashed, before it starts and after it has ended
    (`code.check_code`). Its time goes to an ignored file, `TIMINGS`, because times differ from run to run. With
    `parallel`, torchrun may start several processes; the process that starts them holds the lock. A signal ends
    the stage as an exception would, and so does the end of the `dvc` or `make repro` that started it (`ending`).

    Args:
        cell: the stage's name and the values of its matrix (`train-resnet34-adv`).
        entries: registry entries that the stage uses, with the hashes that it was given (`code.read_entries`).
    """
    torchrun = os.environ.get("MEDROBUST_TORCHRUN") if parallel else None
    own_sources()
    keep_memory()
    script = Path(sys.argv[0])
    try:
        with early_end():
            limit_threads()
            if parallel and "RANK" in os.environ:
                main()
                return
            with disk_errors(str(WORK)), stage_lock(cell) as lock, timed(cell):
                check_code(script, entries)
                if torchrun:
                    _launch(torchrun, lock)
                else:
                    main()
                check_code(script, entries)
    except UserError as error:
        # File names may contain control sequences of terminals.
        sys.exit(f"\n{cell}: " + "\n".join(map(one_line, str(error).split("\n"))))


def limit_threads() -> None:
    """Set the number of threads of numerical libraries; call it before they are imported."""
    threads = os.environ.get("MEDROBUST_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:
        raise UserError("MEDROBUST_THREADS", f"{threads!r}", "Set a number of threads: 1, 2, ...")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = threads


@contextmanager
def timed(cell: str) -> Iterator[None]:
    """Append one line to `TIMINGS`: cell, wall and processor seconds, peak memory in MB, threads."""
    begin = time.monotonic()
    yield
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(usage.ru_utime + usage.ru_stime for usage in used)
    peak = max(usage.ru_maxrss for usage in used) // (1024 if sys.platform == "linux" else 1024**2)
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    row = f"{cell},{time.monotonic() - begin:.1f},{processor:.1f},{peak},{os.environ['OMP_NUM_THREADS']}\n"
    with TIMINGS.open("a", encoding="utf-8") as file:
        file.write(row)


def own_sources() -> None:
    """Start the process again where Python found another copy of this package than the one that lies here.

    A queued experiment runs in DVC's copy of the workspace, while the environment's installation leads to the
    workspace itself, which may have been edited since; DVC would keep the result under the hash of the copy.
    """
    own = Path("src", "medrobust")
    # Without __init__.py Python would find the other copy again.
    if (own / "__init__.py").is_file() and not own.samefile(Path(__file__).parent.parent):
        paths = [str(own.parent.resolve()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.execv(sys.executable, [sys.executable, *sys.argv])


def keep_memory() -> None:
    """Let the C library keep what is freed, for the next batch of the same sizes.

    It would hand large blocks back to the system and get them again page by page: a tenth of a training on a CPU.
    Other libraries than glibc have no such setting.
    """
    if platform.libc_ver()[0] == "glibc":
        trim, pad, mapped = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
        for setting, size in ((trim, 2**31 - 1), (pad, 2**26), (mapped, 2**25)):
            ctypes.CDLL(None).mallopt(setting, size)


def _launch(torchrun: str, lock: int) -> None:
    """Run this command in the processes of torchrun; they hold the lock too, should this process be killed."""
    command = [sys.executable, "-m", "torch.distributed.run", *shlex.split(torchrun), *sys.argv]
    code = subprocess.run(command, pass_fds=[lock], env=children_environment(), check=False).returncode
    if code:
        sys.exit(code)


def repository() -> Path:
    """The folder of the pipeline; in a queued run, the one that the workspace was copied from.

    DVC makes that copy in `.dvc/tmp/exps`, without files that git ignores, and deletes it when the run has failed.
    """
    copies = (".dvc", "tmp", "exps")
    return next((folder.parents[2] for folder in Path.cwd().parents if folder.parts[-3:] == copies), Path())


def lasting_folder() -> Path:
    """`tmp` of the `repository`, for resume files: the next run with the same values finds them there.

    Two runs may use the files of one key at once.
    """
    return repository() / WORK


@contextmanager
def stage_lock(cell: str, folder: Path = WORK) -> Iterator[int]:
    """Hold the cell's lock file; give its descriptor.

    A killed `dvc` leaves its stage running for a moment. Without the lock that process would write over the outs
    of the stage that the next `dvc repro` starts.
    """
    waiting = f"{cell}: process {{holder}} still runs this stage; waiting for it (kill it to go on at once)"
    with file_lock(folder / "locks" / f"{cell}.lock", str(os.getpid()), waiting) as descriptor:
        yield descriptor


@contextmanager
def file_lock(path: Path, holder: str, waiting: str) -> Iterator[int]:
    """Hold a lock file; give its descriptor. While another process holds it, say so once and wait.

    Args:
        path: of the lock file, which is created and stays.
        holder: what this process writes into it.
        waiting: what to say, with `{holder}` for what the other process has written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(waiting.format(holder=file.read().strip()))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield file.fileno()


def process_number() -> int:
    """This process's number among those that torchrun started for the stage; 0 alone writes files."""
    return int(os.environ.get("RANK", "0"))


def say(message: str) -> None:
    """Print a line at once, also where the output is a pipe."""
    print(message, flush=True)  # noqa: T201


def progress(items: Iterable[T], desc: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with a bar on a terminal, and with a plain line every few seconds elsewhere."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=desc, total=total, unit=unit, leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_INTERVAL:
            say(f"{desc}: {done}/{total or '?'} {unit}, {done / (now - start):.1f} {unit}/s")
            last = now


def device(name: str | None = None) -> "torch.device":
    """The device to compute on, made ready: `name`, else `MEDROBUST_DEVICE`, else a GPU, else the CPU.

    Processes on one machine, of torchrun or of one study, each use their own GPU, unless the variable names one
    (`cuda:1`). It becomes the current GPU; otherwise every process would hold memory of the first. TF32 is off:
    its 10 bits make the prediction for an image that was just fooled depend on the batch size.

    Raises:
        UserError: `name` or the variable names a device that torch does not know or this machine does not have.
    """
    import torch

    wanted = name or os.environ.get("MEDROBUST_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    if wanted == "cuda" and torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        torch.cuda.set_device(number)
        return torch.device(f"cuda:{number}")
    try:
        chosen = torch.device(wanted)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            "device" if name else "MEDROBUST_DEVICE",
            f"{wanted!r} cannot be used ({error})",
            "Set it to cpu, cuda or cuda:N",
        ) from None
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; called once at the start of a stage that draws at random."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
