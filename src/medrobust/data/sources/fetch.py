"""Bringing raw data in: local files, and addresses, whose downloads go on where they broke off."""

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import file_hash
from medrobust.core.runtime import WORK, say
from medrobust.data.sources.files import copy_folder

if TYPE_CHECKING:
    import requests

#: Times that a broken connection is taken up again within one run.
ATTEMPTS = 5
#: Bytes written at a time; a connection that breaks loses fewer than these.
CHUNK = 1 << 16
#: Seconds to wait for a connection, and for the next bytes on it.
TIMEOUT = (30, 120)


def bring(data: DataParams, folder: Path) -> dict[str, str]:
    """Put the file, folder or address `data.path` into `folder`, unchanged, and the table of `data.table` too.

    Returns:
        `file` (its name in `folder`) and `sha256` (empty for a folder).

    Raises:
        UserError: the path is missing, names an unset variable, or the hash is not `data.sha256`.
    """
    if data.path is not None and data.path.startswith(("http://", "https://")):
        name = PurePosixPath(unquote(urlsplit(data.path).path)).name
        file = folder / ("download" if name in ("", "..") else name)
        fetch_url(data.path, file)
    else:
        path = local_path(data.path)
        file = folder / path.name
        if path.is_dir():
            copy_folder(path, file)
        else:
            shutil.copyfile(path, file)
    bring_table(data, folder)
    return {"file": file.name, "sha256": "" if file.is_dir() else check_sha256(file, data.sha256)}


def local_path(path: str | None, where: str = "params.yaml: data.path") -> Path:
    """A path of params.yaml with `~` and `$VARIABLES` in place.

    Raises:
        UserError: it is null, names an unset variable, or nothing is there.
    """
    if path is None:
        raise UserError(where, "null", "Give the path of a zip, a tar or a folder")
    expanded = expand(path)
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise UserError(where, f"{path}: {variable} is not set", f"export {variable[1:].strip('{}')}=<folder>")
    if not Path(expanded).exists():
        raise UserError(where, f"{expanded}: no such file", "Give the path of a zip, a tar or a folder")
    return Path(expanded)


def expand(path: str) -> str:
    """The path with `~` and those `$VARIABLES` that are set in place."""
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111


def check_sha256(path: Path, expected: str | None) -> str:
    """The file's sha256.

    Raises:
        UserError: it is not the expected one.
    """
    found = file_hash(path)
    if expected is not None and found != expected.lower():
        remedy = "The file is another one or damaged: fetch it again, or correct data.sha256"
        raise UserError(path.name, f"sha256 is {found}, data.sha256 says {expected}", remedy)
    return found


def fetch_url(url: str, target: Path, md5: str | None = None) -> None:
    """Download a file; what a broken connection or a killed stage left is kept and only the rest is asked for.

    Args:
        url: its address.
        target: where the whole file goes.
        md5: what the publisher says, or None.

    Raises:
        UserError: the address does not answer, the connection keeps breaking, or the md5 is another.
    """
    import requests

    part = WORK / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _fetch_rest(url, part)
            break
        except requests.HTTPError as error:
            raise UserError(
                url, f"answers {error.response.status_code}", "Check the address in a browser"
            ) from None
        except requests.RequestException as error:
            size = part.stat().st_size if part.exists() else 0
            say(f"download: cut off after {size} bytes, attempt {attempt + 1} of {ATTEMPTS}")
            fault = f"cut off after {size} bytes ({error})"
    else:
        raise UserError(url, fault, "Run the stage again: it goes on from there")
    if md5 is not None and (found := file_hash(part, "md5")) != md5:
        part.unlink()
        raise UserError(url, f"md5 is {found}, published is {md5}", "Run the stage again: it starts anew")
    shutil.move(part, target)
    part.with_suffix(".tag").unlink(missing_ok=True)


def _fetch_rest(url: str, part: Path) -> None:
    """Ask for the bytes that `part` lacks and append them; start anew where the server has another file by now."""
    import requests

    tag = part.with_suffix(".tag")
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # so that bytes on disk and bytes sent are the same
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # the server has no more bytes than we do, or another file: ask for all
            tag.unlink()
            raise requests.ConnectionError("no such range")
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
        # A weak tag, or none, cannot prove that the rest belongs to the part; then a resumption starts anew.
        etag = answer.headers.get("ETag", "")
        tag.write_text(etag) if etag.startswith('"') else tag.unlink(missing_ok=True)
        with part.open("ab" if have else "wb") as file:
            for block in answer.iter_content(CHUNK):
                file.write(block)
        _check_whole(answer, part, have)


def _check_whole(answer: "requests.Response", part: Path, have: int) -> None:
    import requests

    promised = answer.headers.get("Content-Length")
    if promised is not None and part.stat().st_size < have + int(promised):
        raise requests.ConnectionError("fewer bytes than promised")


def bring_table(data: DataParams, folder: Path) -> None:
    """Copy the table of `data.table.file` if it is a file of its own; else it is looked for in the archive."""
    if data.table is not None and data.table.file is not None:
        path = Path(expand(data.table.file))
        if path.is_file():
            shutil.copyfile(path, folder / f"table{path.suffix.lower()}")
