"""The files of a folder, a zip or a tar, read in place: no archive chooses where anything is written."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Generic, Protocol, TypeVar

from medrobust.core.errors import UserError

#: An archive may unpack to this many times its size plus the slack; images are packed already and reach 2 or 3.
MAX_RATIO, SLACK = 100, 2**30
#: First two bytes of a packed tar -> what unpacks it.
COMPRESSED: dict[bytes, Callable[[Path], "Readable"]] = {
    b"\x1f\x8b": gzip.GzipFile, b"BZ": bz2.BZ2File, b"\xfd7": lzma.LZMAFile,
}  # fmt: skip
#: Methods that Python's zipfile unpacks.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
#: What damaged content raises when a member of an archive is read.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
T = TypeVar("T")


class Readable(Protocol):
    """Anything with bytes to read."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


@dataclass(frozen=True)
class Files:
    """Some files.

    Attributes:
        place: the folder or archive, for messages.
        names: relative, with `/` between folders; hidden files and those that macOS adds are left out.
        open: gives a file by name; may be called from several threads.
    """

    place: Path
    names: list[str]
    open: Callable[[str], IO[bytes]]

    def read(self, name: str) -> bytes:
        """The whole of a file.

        Raises:
            ValueError: it is damaged inside the archive.
        """
        try:
            with self.open(name) as file:
                return file.read()
        except DAMAGED as error:
            raise ValueError(f"damaged in {self.place.name} ({error})") from None


def open_files(path: Path) -> Files:
    """The files of a folder, a zip or a tar (plain, gz, bz2 or xz).

    Raises:
        UserError: the archive is truncated or none, encrypted, a bomb, or holds absolute names, `..` or links.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return Files(path, _visible(names), lambda name: (path / name).open("rb"))
    try:
        if zipfile.is_zipfile(path):
            return zip_files(path, path, path.stat().st_size)
        return _tar_files(path)
    except (tarfile.TarError, *DAMAGED) as error:
        raise UserError(str(path), f"truncated or no archive ({error})", "Fetch it again") from None


def zip_files(place: Path, content: Path | IO[bytes], size: int) -> Files:
    """The files of a zip.

    Args:
        place: its name, for messages.
        content: the zip itself.
        size: its bytes, by which a bomb is known.
    """
    archive = zipfile.ZipFile(content)
    members = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(str(place), f"holds a link ({info.filename})", "Pack it again with plain files")
        if info.flag_bits & 1:
            raise UserError(str(place), f"is encrypted ({info.filename})", "Pack it again without a password")
        if info.compress_type not in METHODS:
            found = f"is packed by method {info.compress_type} ({info.filename})"
            raise UserError(str(place), found, "Pack it again by deflate")
        members[_decoded_name(info)] = info
    check_unpacked(place, sum(info.file_size for info in members.values()), size)
    _check_names(place, list(members))
    return Files(place, _visible(list(members)), lambda name: archive.open(members[name]))


def spool(source: "Readable", place: Path, size: int, folder: Path) -> IO[bytes]:
    """Unpack a stream into a nameless file in `folder` that vanishes with its last user.

    Args:
        source: gives the unpacked bytes.
        place: where they come from, for messages.
        size: bytes packed, by which a bomb is known.
        folder: on a disk that has room.
    """
    target = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the listing that reads it
    while block := source.read(1 << 20):
        target.write(block)
        check_unpacked(place, target.tell(), size)
    target.seek(0)
    return target


def check_unpacked(place: Path, unpacked: int, packed: int) -> None:
    """Refuse an archive that unpacks to far more than images can.

    Raises:
        UserError: more than `MAX_RATIO` times its size plus `SLACK`.
    """
    if unpacked > MAX_RATIO * packed + SLACK:
        found = f"unpacks to over {unpacked / 1e9:.3g} GB from {packed / 1e9:.3g} GB, like a zip bomb"
        raise UserError(str(place), found, "Fetch it from a source you trust")


def readers() -> int:
    """How many threads read images: `MEDROBUST_THREADS`, else one a core, 16 at most (each may hold a volume)."""
    return int(os.environ.get("MEDROBUST_THREADS", "0")) or min(os.cpu_count() or 1, 16)


class Shared(Generic[T]):
    """Loads what several images have in common (a volume, a block of a table) once, and keeps the last few."""

    def __init__(self, load: Callable[[str], T]) -> None:
        self._load, self._keep = load, readers() + 1
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, tuple[threading.Lock, list[T]]] = OrderedDict()

    def __call__(self, key: str) -> T:
        """What `load` gives for a key."""
        with self._lock:
            lock, found = self._slots.setdefault(key, (threading.Lock(), []))
            self._slots.move_to_end(key)
            while len(self._slots) > self._keep:
                self._slots.popitem(last=False)
        with lock:
            if not found:
                found.append(self._load(key))
        return found[0]


def _tar_files(path: Path) -> Files:
    """A tar has no index: it is walked once, and its files are then read by their offset."""
    size = path.stat().st_size
    with path.open("rb") as file:
        unpack = COMPRESSED.get(file.read(2))
    plain: IO[bytes] = path.open("rb") if unpack is None else spool(unpack(path), path, size, path.parent)
    places = {}
    with tarfile.open(fileobj=plain, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                found = f"holds a link or device ({member.name})"
                raise UserError(str(path), found, "Pack it again with plain files")
            places[member.name] = (member.offset_data, member.size)
    if not places:  # zeros alone are a valid tar, and what a download may leave that was cut off
        raise tarfile.ReadError("there is no file in it")
    _check_tar_end(plain)
    _check_names(path, list(places))

    def read(name: str) -> IO[bytes]:
        offset, length = places[name]
        return io.BytesIO(os.pread(plain.fileno(), length, offset))

    return Files(path, _visible(list(places)), read)


def _check_tar_end(plain: IO[bytes]) -> None:
    """A tar ends with 1,024 zero bytes; `tarfile` takes one that is cut off between two files for whole."""
    plain.seek(0)
    ustar = plain.read(262).endswith(b"ustar")
    end = plain.seek(0, 2)
    plain.seek(-min(1024, end), 2)
    if ustar and any(plain.read()):
        raise tarfile.ReadError("the end is missing")


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """A member's name; many tools write UTF-8 without its flag, and Python then reads code page 437."""
    if not info.flag_bits & 0x800:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _check_names(place: Path, names: list[str]) -> None:
    for name in names:
        windows = PureWindowsPath(name)
        if name.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
            raise UserError(str(place), f"holds the unsafe name {name!r}", "Fetch it from a source you trust")


def _visible(names: list[str]) -> list[str]:
    parts = {name: PurePosixPath(name).parts for name in names}
    return sorted(
        name for name in names if "__MACOSX" not in parts[name] and not any(p.startswith(".") for p in parts[name])
    )


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder as it is; links are followed.

    Raises:
        UserError: a link leads nowhere or in a circle, or a file cannot be read.
    """
    try:
        shutil.copytree(source, target)
    except shutil.Error as error:
        name, _, reason = error.args[0][0]
        raise UserError(str(name), f"cannot be copied ({reason})", "Mend the link or the file's rights") from None
