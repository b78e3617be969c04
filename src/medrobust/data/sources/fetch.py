"""Copy local raw data or download it; interrupted downloads are resumed."""

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from medrobust.core.content import content_hash
from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.records import file_hash, read_json
from medrobust.core.runtime import WORK, say
from medrobust.data.sources.files import Files, copy_folder, open_files

#: Number of attempts within one run if the connection breaks.
ATTEMPTS = 5
#: Bytes written at a time; a broken connection loses fewer bytes than this.
CHUNK = 1 << 16
#: Timeouts in seconds: to connect, and between received bytes.
TIMEOUT = (30, 120)


def copy_or_download(data: DataParams, folder: Path, seed: int) -> dict[str, str]:
    """Copy or download `data.path` (a file, folder or URL) and the table of `data.table` into `folder`, unchanged.

    Returns:
        `file` (the name in `folder`), `sha256` (empty for a folder), and for each local file or folder its key in
        params.yaml with its `content_hash`, by which `make repro` detects edits.

    Raises:
        UserError: the path does not exist or contains an unset variable, the download fails, or the hash is not
            `data.sha256`.
    """
    if data.path is not None and data.path.startswith(("http://", "https://")):
        name = PurePosixPath(unquote(urlsplit(data.path).path)).name
        file = folder / ("download" if name in ("", "..") else name)
        download_file(data.path, file)
        read = {}
    else:
        path = _local_path(data.path)
        read = {"data.path": content_hash(path)}  # before copying, so that an edit during the copy is detected
        file = folder / path.name
        if path.is_dir():
            copy_folder(path, file)
        else:
            shutil.copyfile(path, file)
    read |= copy_table(data, folder)
    return {"file": file.name, "sha256": "" if file.is_dir() else _checked_sha256(file, data.sha256), **read}


def open_raw(folder: Path) -> Files:
    """Open the archive or folder that `copy_or_download` wrote; raises as `open_files` does."""
    return open_files(folder / read_json(folder / "source.json")["file"])


def _local_path(path: str | None) -> Path:
    """Expand `~` and `$VARIABLES` in `data.path`; raises a UserError if it does not exist."""
    where = "params.yaml: data.path"
    if path is None:
        raise UserError(where, "null", "Set it to the path of a zip, a tar or a folder")
    expanded = expand_path(path)
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise UserError(where, f"{path}: {variable} is not set", f"Run export {variable[1:].strip('{}')}=<folder>")
    if not Path(expanded).exists():
        raise UserError(where, f"{expanded}: no such file", "Set it to the path of a zip, a tar or a folder")
    return Path(expanded)


def expand_path(path: str) -> str:
    """Expand `~` and the `$VARIABLES` that are set."""
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111


def _checked_sha256(path: Path, expected: str | None) -> str:
    """Return the sha256 of a file; raises a UserError if it differs from the expected one."""
    actual = file_hash(path)
    if expected is not None and actual != expected.lower():
        remedy = "The file is damaged or another one: download it again, or correct data.sha256"
        raise UserError(path.name, f"its sha256 is {actual}, but data.sha256 is {expected}", remedy)
    return actual


def download_file(url: str, target: Path, md5: str | None = None) -> None:
    """Download a file. A partial download of a broken connection or a killed stage is resumed.

    Raises:
        UserError: the server returns an error, the connection breaks `ATTEMPTS` times, or `md5` differs.
    """
    part = WORK / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _resume(url, part)
            break
        except requests.HTTPError as error:
            found = f"the server returned status {error.response.status_code}"
            raise UserError(url, found, "Check the address in a browser") from None
        except requests.RequestException as error:
            size = part.stat().st_size if part.exists() else 0
            say(f"download: interrupted after {size} bytes, attempt {attempt + 1} of {ATTEMPTS}")
            fault = f"interrupted after {size} bytes ({error})"
    else:
        raise UserError(url, fault, "Run the stage again to resume the download")
    if md5 is not None and (actual := file_hash(part, "md5")) != md5:
        part.unlink()
        raise UserError(
            url, f"its md5 is {actual}, but {md5} is published", "Run the stage again to download it anew"
        )
    shutil.move(part, target)
    part.with_suffix(".tag").unlink(missing_ok=True)


def _resume(url: str, part: Path) -> None:
    """Download the bytes that `part` lacks and append them; start anew if the server has another file by now."""
    tag = part.with_suffix(".tag")
    start = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # no compression: offsets count the bytes of the file
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the part is as long as the file, or the file has changed: download all
            tag.unlink()
            raise requests.ConnectionError("range not satisfiable")
        response.raise_for_status()
        if response.status_code != 206:
            start = 0
        # Without a strong ETag nothing proves that the rest belongs to the same file; then resuming starts anew.
        etag = response.headers.get("ETag", "")
        tag.write_text(etag) if etag.startswith('"') else tag.unlink(missing_ok=True)
        with part.open("ab" if start else "wb") as file:
            for block in response.iter_content(CHUNK):
                file.write(block)
        length = response.headers.get("Content-Length")
        if length is not None and part.stat().st_size < start + int(length):
            raise requests.ConnectionError("fewer bytes than announced")


def copy_table(data: DataParams, folder: Path) -> dict[str, str]:
    """Copy the table `data.table.file` if it is a local file; otherwise it is searched for inside the archive.

    Returns:
        Its key in params.yaml with its `content_hash`; {} if it is not a local file.
    """
    if data.table is not None and data.table.file is not None:
        path = Path(expand_path(data.table.file))
        if path.is_file():
            read = {"data.table.file": content_hash(path)}
            shutil.copyfile(path, folder / f"table{path.suffix.lower()}")
            return read
    return {}
