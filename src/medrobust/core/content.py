"""The hash of the content of a file or folder outside the pipeline; unchanged files are not read again."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_file, file_hash

#: One file per path that was hashed; ignored by git and DVC, safe to delete.
CACHE = Path("tmp", "content")
#: Hashes of files edited less than so many seconds ago are not kept: another edit may leave size and times equal.
YOUNG = 2.0
#: What file managers add to folders, besides hidden files.
ADDED = {"__MACOSX", "Thumbs.db", "desktop.ini"}
#: Path below the folder ("" for a single file), size in bytes, and mtime and ctime in ns.
File = tuple[str, int, int, int]


def content_hash(path: str | Path) -> str:
    """sha256 of a file, or of the names and contents of all files below a folder; `~` is the home folder.

    Links are followed. Hidden files and files that file managers add (`ADDED`) are ignored. Hashes are kept in
    `CACHE`: a file is read again only if its size or times have changed. A folder of 100,000 unchanged files takes
    0.4 s of CPU time (`benchmarks/content.py`).

    Raises:
        UserError: links of the folder lead in a circle, or a file cannot be read.
    """
    path = Path(path).expanduser().absolute()
    now = time.time_ns()
    files = [_file("", path)] if path.is_file() else list(_files(path, "", (path.resolve(),)))
    state = hashlib.sha256(repr(files).encode("utf-8", "surrogatepass")).hexdigest()
    cache = CACHE / hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    known = _rows(cache)
    if (first := next(known, None)) and first[0] == state:
        return str(first[1])
    hashes = {tuple(row[:-1]): row[-1] for row in known}
    rows = {file: hashes.get(file) or _read(path / file[0]) for file in files}
    trusted = {file: row for file, row in rows.items() if max(file[2:]) < now - YOUNG * 1e9}
    if path.is_file():
        found = rows[files[0]]
    else:
        listed = sorted(files, key=lambda file: file[0].split("/"))
        listing = "\n".join(f"{file[0]} {rows[file]}" for file in listed)
        found = hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()
    _write(cache, [state if trusted == rows else "", found], trusted.items())
    return found


def _files(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[File]:
    """All files below a folder; `above` are the resolved paths of it and of the folders above it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in ADDED:
                continue
            if not entry.is_dir():
                yield _file(f"{prefix}{entry.name}", entry)
                continue
            inner = Path(entry.path)
            way = (*above, inner.resolve() if entry.is_symlink() else above[-1] / entry.name)
            if way[-1] in above:
                raise UserError(str(inner), "is a link to a folder that it is in", "Remove the link")
            yield from _files(inner, f"{prefix}{entry.name}/", way)


def _file(name: str, entry: "Path | os.DirEntry[str]") -> File:
    try:
        facts = entry.stat()
    except OSError as error:
        raise _unreadable(entry, error) from None
    return name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _read(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: "Path | os.DirEntry[str]", error: OSError) -> UserError:
    return UserError(os.fspath(path), f"cannot be read ({error.strerror})", "Fix the link or the file permissions")


def _rows(cache: Path) -> Iterator[list[Any]]:
    """Rows of the cache: first the state and hash of the whole, then one row per file with its hash."""
    try:
        with cache.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except (FileNotFoundError, ValueError):
        return


def _write(cache: Path, first: list[str], rows: Iterable[tuple[File, str]]) -> None:
    with atomic_file(cache) as temporary, temporary.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(row)}\n" for row in (first, *([*file, known] for file, known in rows)))
