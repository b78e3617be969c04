"""Read and write the files that stages exchange. Writes are atomic: a killed stage leaves no partial file."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrobust.core.disk import disk_errors_of_writing, remove_killed_writes, temporary_path
from medrobust.core.errors import UserError
from medrobust.core.versions import installed, of_metrics

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`.

    Raises:
        UserError: the disk is full or read-only, or the system refuses the write for another such reason.
    """
    path = Path(path)
    temporary = temporary_path(path, path.suffix)
    try:
        with disk_errors_of_writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_killed_writes(path, path.stem)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # a disk that refuses the write also refuses this
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path`.

    Raises:
        UserError: as `atomic_file`.
    """
    path = Path(path)
    temporary, old = temporary_path(path), temporary_path(path.with_name(f"{path.name}.old"))
    try:
        with disk_errors_of_writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_killed_writes(path, path.name)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            if path.is_dir():  # renamed first: a process killed while deleting would leave a partial folder
                path.replace(old)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            if old.is_dir() and not path.exists():
                old.replace(path)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path | str, content: Any, digits: int | None = None) -> None:
    """Write JSON with keys in the given order and, if `digits` is set, floats rounded to that many decimals.

    Raises:
        ValueError: `content` contains NaN or infinity, which JSON has no value for; use None for "not defined".
    """
    if digits is not None:
        content = _rounded(content, digits)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_metrics(path: Path | str, record: dict[str, Any], shown: dict[str, Any]) -> None:
    """Write a DVC metrics file: the few values that DVC shows, and the whole record under `details`.

    `dvc metrics` shows every number and string of a file, at any depth, but skips lists. A record has tens of
    numbers and a run has tens of records, so the record is put into a list of length one. Its floats are rounded
    to six decimals. Readers round them again to three; after rounding to four, the third decimal would sometimes
    be wrong.

    `shown` is flat; its floats are already rounded (`intervals.round_to_interval`), and None is left out. The
    versions of packages (`core.versions`) are a list of one too, so that `dvc metrics` does not show them.
    """
    defined = {name: value for name, value in shown.items() if value is not None}
    versions = {"versions": [installed()]} if record else {}
    write_json(path, {**defined, **versions, "details": [record]}, digits=6)


def read_metrics(path: Path | str) -> dict[str, Any]:
    """Read the record of a metrics file.

    Raises:
        UserError: the file is missing or damaged, or is not a metrics file.
    """
    match read_json(path):
        case {"details": [dict() as record]}:
            return record
    raise UserError(str(path), "is not a metrics file of this version: it has no `details`", "Run `dvc repro`")


def read_versions(path: Path | str) -> str:
    """The versions that a metrics file names, in one line; "" if it names none."""
    return of_metrics(read_json(path))


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
    """Write a table without its index, as CSV or Parquet according to the suffix."""
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
    """Read a CSV or Parquet table written by `write_table`; `options` are passed to pandas.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pandas as pd

    read = pd.read_parquet if Path(path).suffix == ".parquet" else pd.read_csv
    try:
        table: pd.DataFrame = read(path, **options)
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:  # raised by pandas and pyarrow for content that is not a table
        raise UserError(
            str(path), f"damaged table ({str(error).strip()})", "Delete it and run `dvc repro`"
        ) from None
    return table


def file_hash(path: Path | str, algorithm: str = "sha256") -> str:
    """Hash of a file in hex; `algorithm` is a name of `hashlib` (data publishers often state an md5)."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _remove_killed_writes(path: Path, stem: str) -> None:
    """Delete what earlier processes, killed while they wrote `path`, left beside it."""
    remove_killed_writes(path.parent.glob(f".{escape(stem)}.*.tmp*"))


def _missing(path: Path | str) -> UserError:
    return UserError(str(path), "no such file", "Run `dvc pull`, or `dvc repro` to run the stage that writes it")


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner, digits) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, digits)
    return value
