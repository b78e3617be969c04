"""Read the files of a folder, a zip or a tar in place; nothing is unpacked under a name that an archive chose."""

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Generic, TypeVar

from medrobust.core.errors import UserError

if TYPE_CHECKING:
    from _typeshed import SupportsRead

#: An archive may unpack to MAX_RATIO times its size plus SLACK bytes; archives of images reach 2 or 3 times.
MAX_RATIO, SLACK = 100, 2**30
#: First two bytes of a compressed tar -> decompressor.
DECOMPRESSORS: dict[bytes, "Callable[[Path], SupportsRead[bytes]]"] = {
    b"\x1f\x8b": gzip.GzipFile, b"BZ": bz2.BZ2File, b"\xfd7": lzma.LZMAFile,
}  # fmt: skip
#: Compression methods that Python's zipfile supports.
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
#: Exceptions raised when a damaged member of an archive is read.
READ_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """The files of a folder or archive."""

    path: Path
    names: list[str]  # relative, with `/` between folders, without hidden files and those that macOS adds
    open: Callable[[str], IO[bytes]]  # opens a file by name; may be called from several threads

    def read(self, name: str) -> bytes:
        """Read a whole file; raises ValueError if it is damaged inside the archive."""
        try:
            with self.open(name) as file:
                return file.read()
        except READ_ERRORS as error:
            raise ValueError(f"damaged in {self.path.name} ({fault(error)})") from None


def fault(error: Exception) -> str:
    """Words for an error of a damaged file, without the file's name, which zipfile writes into its messages."""
    return "wrong checksum or header" if isinstance(error, zipfile.BadZipFile) else str(error)


def open_files(path: Path) -> Files:
    """Open a folder, a zip or a tar (plain, gz, bz2 or xz).

    Raises:
        UserError: the file is truncated, not an archive, encrypted or a zip bomb, or contains absolute names, `..`
            or links.
    """
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        found = _by_name(path, ((file.relative_to(path).as_posix(), file) for file in files))
        return Files(path, _visible(list(found)), lambda name: found[name].open("rb"))
    try:
        if zipfile.is_zipfile(path):
            return zip_files(path, path, path.stat().st_size)
        return _tar_files(path)
    except (tarfile.TarError, *READ_ERRORS) as error:
        raise UserError(str(path), f"truncated or not an archive ({error})", "Download it again") from None


def zip_files(path: Path, content: Path | IO[bytes], size: int) -> Files:
    """Open a zip of `size` bytes; messages name it `path`. Raises as `open_files` does."""
    archive = zipfile.ZipFile(content)
    infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(str(path), f"contains a link ({info.filename})", "Create it again with plain files")
        if info.flag_bits & 1:
            raise UserError(str(path), f"is encrypted ({info.filename})", "Create it again without a password")
        if info.compress_type not in ZIP_METHODS:
            found = f"uses the unsupported compression method {info.compress_type} ({info.filename})"
            raise UserError(str(path), found, "Create it again with the method deflate")
    members = _by_name(path, ((_decoded_name(info), info) for info in infos))
    _check_unpacked_size(path, sum(info.file_size for info in members.values()), size)
    _check_names(path, list(members))
    return Files(path, _visible(list(members)), lambda name: archive.open(members[name]))


def spool(source: "SupportsRead[bytes]", path: Path, size: int, folder: Path) -> IO[bytes]:
    """Unpack a stream into an anonymous temporary file in `folder`, which is deleted when it is closed.

    Messages name the archive `path`. Its packed `size` in bytes serves to detect zip bombs.
    """
    target = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - stays open as long as the listing that reads it
    while block := source.read(1 << 20):
        target.write(block)
        _check_unpacked_size(path, target.tell(), size)
    target.seek(0)
    return target


def _check_unpacked_size(path: Path, unpacked: int, packed: int) -> None:
    """Raise a UserError if an archive unpacks to far more than an archive of images can."""
    if unpacked > MAX_RATIO * packed + SLACK:
        found = f"unpacks to over {unpacked / 1e9:.3g} GB from {packed / 1e9:.3g} GB, like a zip bomb"
        raise UserError(str(path), found, "Download it from a source you trust")


def reader_threads() -> int:
    """Number of threads that read images: `MEDROBUST_THREADS`, or one per core, up to 16.

    The limit bounds memory, because each thread may hold a volume.
    """
    return int(os.environ.get("MEDROBUST_THREADS", "0")) or min(os.cpu_count() or 1, 16)


class SharedCache(Generic[T]):
    """Thread-safe LRU cache of what several images share (a volume, a block of a table); each is loaded once."""

    def __init__(self, load: Callable[[str], T]) -> None:
        self._load, self._size = load, reader_threads() + 1
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, tuple[threading.Lock, list[T]]] = OrderedDict()

    def __call__(self, key: str) -> T:
        with self._lock:
            lock, value = self._slots.setdefault(key, (threading.Lock(), []))
            self._slots.move_to_end(key)
            while len(self._slots) > self._size:
                self._slots.popitem(last=False)
        with lock:
            if not value:
                value.append(self._load(key))
        return value[0]


def _tar_files(path: Path) -> Files:
    """Open a tar. It has no index: scan it once, then read its files by offset."""
    size = path.stat().st_size
    with path.open("rb") as file:
        decompress = DECOMPRESSORS.get(file.read(2))
    plain: IO[bytes] = path.open("rb") if decompress is None else spool(decompress(path), path, size, path.parent)
    members = []
    with tarfile.open(fileobj=plain, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                found = f"contains a link or device ({member.name})"
                raise UserError(str(path), found, "Create it again with plain files")
            members.append((member.name, (member.offset_data, member.size)))
    if not members:  # a file of zeros is a valid tar; an interrupted download may leave one
        raise tarfile.ReadError("it contains no file")
    _check_tar_end(plain)
    offsets = _by_name(path, members)
    _check_names(path, list(offsets))

    def read(name: str) -> IO[bytes]:
        offset, length = offsets[name]
        return io.BytesIO(os.pread(plain.fileno(), length, offset))

    return Files(path, _visible(list(offsets)), read)


def _check_tar_end(plain: IO[bytes]) -> None:
    """Check for the final 1,024 zero bytes; `tarfile` accepts a tar that is truncated between two files."""
    plain.seek(0)
    ustar = plain.read(262).endswith(b"ustar")
    end = plain.seek(0, 2)
    plain.seek(-min(1024, end), 2)
    if ustar and any(plain.read()):
        raise tarfile.ReadError("its end is missing")


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """Name of a member; many tools write UTF-8 without its flag, and Python then decodes it as code page 437."""
    if not info.flag_bits & 0x800:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _by_name(path: Path, entries: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Entries by their names, with `/` in place of the backslashes that some tools on Windows write.

    Raises:
        UserError: two names differ only in their slashes.
    """
    found: dict[str, tuple[str, T]] = {}
    for stored, entry in entries:
        name = stored.replace("\\", "/")
        if name in found and found[name][0] != stored:
            raise UserError(str(path), f"contains both {found[name][0]} and {stored}", "Rename one of them")
        found[name] = (stored, entry)
    return {name: entry for name, (_, entry) in found.items()}


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        windows = PureWindowsPath(name)
        if name.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
            raise UserError(str(path), f"contains the unsafe name {name!r}", "Download it from a source you trust")


def _visible(names: list[str]) -> list[str]:
    parts = {name: PurePosixPath(name).parts for name in names}
    return sorted(
        name for name in names if "__MACOSX" not in parts[name] and not any(p.startswith(".") for p in parts[name])
    )


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder unchanged; links are followed.

    Raises:
        UserError: a link is broken or circular, or a file cannot be read.
    """
    try:
        shutil.copytree(source, target)
    except shutil.Error as error:
        name, _, reason = error.args[0][0]
        remedy = "Fix the link or the file permissions"
        raise UserError(str(name), f"cannot be copied ({reason})", remedy) from None
