"""Disk errors as messages for users, and the temporary files of killed writes."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medrobust.core.errors import UserError

AGAIN = "run the same command again to continue"
REFUSED = (errno.EACCES, errno.EPERM)
#: errno of an error that a disk or its settings cause -> remedy.
REMEDIES = {
    errno.ENOSPC: f"Free disk space and {AGAIN}",
    errno.EDQUOT: f"Free disk space or raise your quota, and {AGAIN}",
    errno.EFBIG: f"Raise the limit of file sizes (`ulimit -f unlimited`) and {AGAIN}",
    errno.EROFS: f"Mount the disk with write access and {AGAIN}",
    **dict.fromkeys(REFUSED, f"Give yourself access to the file and its folder (`chmod`, `chown`), and {AGAIN}"),
}
#: Libraries report these in the text of their own exceptions.
IN_TEXT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Name of a temporary file or folder: `.NAME.PID.tmp`, and the suffix again, by which libraries choose the format.
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\.\w+)?")


@contextmanager
def disk_errors_of_writing(path: Path) -> Iterator[None]:
    """Raise a UserError that names `path` if the disk is the cause of an error.

    Libraries report a full disk by its errno, only in the message, or by an exception that wraps the OSError.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            known = getattr(cause, "errno", None)
            told = [number for number in IN_TEXT if os.strerror(number) in str(cause)]
            if number := known if known in REMEDIES else next(iter(told), None):
                found = f"cannot be written: {os.strerror(number)}"
                raise UserError(str(path), found, f"The previous version is intact. {REMEDIES[number]}") from error
            cause = cause.__cause__ or cause.__context__
        raise


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Raise a UserError if the system refuses to read or write a file; it names the file, or `what`."""
    try:
        yield
    except OSError as error:
        # A permission error without a file name does not come from the disk.
        if error.errno not in REMEDIES or (error.errno in REFUSED and not error.filename):
            raise
        found = f"cannot be read or written: {os.strerror(error.errno)}"
        raise UserError(str(error.filename or what), found, REMEDIES[error.errno]) from error


def temporary_path(path: Path, suffix: str = "") -> Path:
    """Where this process writes what becomes `path`; git and DVC ignore such names."""
    stem = path.name.removesuffix(suffix) if suffix else path.name
    return path.with_name(f".{stem}.{os.getpid()}.tmp{suffix}")


def remove_killed_writes(paths: Iterable[Path]) -> list[Path]:
    """Delete the temporary files and folders among `paths` whose processes have ended; return what was deleted."""
    removed = []
    for path in paths:
        match = TEMPORARY.fullmatch(path.name)
        if match is None or is_alive(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def is_alive(process: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to somebody else
        return True
    return True
