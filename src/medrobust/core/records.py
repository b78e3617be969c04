"""Files that stages exchange, written so that a killed stage never leaves one that looks complete.

Each write goes to a temporary neighbour, is flushed to disk, and is then renamed over the target.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrobust.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: A disk, or a user's share of it, is full.
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`.

    Raises:
        UserError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The last suffix stays, because libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:  # all are raised again
        _refuse_full_disk(path, error)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it takes the place of `path`.

    Raises:
        UserError: the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    except Exception as error:  # all are raised again
        _refuse_full_disk(path, error)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path | str, content: Any, digits: int | None = None) -> None:
    """Write JSON with its keys in the order given, floats rounded to `digits` decimals if asked.

    Raises:
        ValueError: `content` holds a NaN or infinity, which JSON cannot say; write None for "not defined".
    """
    if digits is not None:
        content = _rounded(content, digits)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_metrics(path: Path | str, record: dict[str, Any], shown: dict[str, Any]) -> None:
    """Write a metrics file of DVC: the few values that its views show, and the whole record in `details`.

    `dvc metrics` shows every number and text of a file, however deep, and passes over lists. A record has tens of
    numbers and a run tens of records, so the record stands in a list of one.

    Args:
        path: below metrics/.
        record: all of it, as `read_metrics` gives it back, floats rounded to six decimals: who shows three of
            them rounds again, and four would now and then round the third one wrong.
        shown: flat; floats rounded to what their intervals support (`metrics.supported`); None is left out.
    """
    few = {name: value for name, value in shown.items() if value is not None}
    write_json(path, {**few, "details": [record]}, digits=6)


def read_metrics(path: Path | str) -> dict[str, Any]:
    """Read the record of a metrics file.

    Raises:
        UserError: the file is missing, damaged or no metrics file.
    """
    match read_json(path):
        case {"details": [dict() as record]}:
            return record
    raise UserError(str(path), "has no `details`, so it is no metrics file of this version", "Run `dvc repro`")


def read_json(path: Path | str) -> Any:
    """Read a JSON file written by an earlier stage.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except json.JSONDecodeError as error:
        raise UserError(str(path), f"damaged JSON ({error})", "Delete it and run `dvc repro`") from None


def write_table(path: Path | str, table: "pd.DataFrame") -> None:
    """Write a table as CSV or Parquet, as the suffix says, without its index."""
    with atomic_file(path) as temporary:
        if temporary.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")


def write_empty(*paths: Path) -> None:
    """Write outs without content, for a cell that params.yaml switches off; readers skip an empty record.

    A path with suffix .json is a metrics file, one with another suffix a table without rows, any other a folder.
    """
    import pandas as pd

    for path in paths:
        if path.suffix == ".json":
            write_metrics(path, {}, {})
        elif path.suffix:
            write_table(path, pd.DataFrame(columns=["id"]))
        else:
            path.mkdir(parents=True, exist_ok=True)


def read_table(path: Path | str, **options: Any) -> "pd.DataFrame":
    """Read a CSV or Parquet table written by `write_table`; `options` go to pandas.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pandas as pd

    read = pd.read_parquet if Path(path).suffix == ".parquet" else pd.read_csv
    try:
        table: pd.DataFrame = read(path, **options)
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:  # what pandas and pyarrow raise for content that is no table
        raise UserError(
            str(path), f"damaged table ({str(error).strip()})", "Delete it and run `dvc repro`"
        ) from None
    return table


def file_hash(path: Path | str, algorithm: str = "sha256") -> str:
    """The hash of a file in hex; `algorithm` as `hashlib` names it (publishers of data often give an md5)."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _refuse_full_disk(path: Path, error: BaseException) -> None:
    """Raise a user's error if a write failed for want of room.

    Libraries tell it by a number, in words alone, or by an error of their own that came of the system's.
    """
    words = [os.strerror(number) for number in FULL]
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in FULL or any(text in str(cause) for text in words):
            found = f"cannot be written: {os.strerror(errno.ENOSPC)}"
            remedy = "What stood there before is whole. Make room and run the same command: it goes on from there"
            raise UserError(str(path), found, remedy) from error
        cause = cause.__cause__ or cause.__context__


def _missing(path: Path | str) -> UserError:
    return UserError(str(path), "no such file", "Run `dvc repro`, so that the stage that writes it runs")


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner, digits) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, digits)
    return value
