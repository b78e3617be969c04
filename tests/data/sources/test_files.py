"""Archives of every kind; damaged and unsafe ones are refused."""

import io
import struct
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.errors import UserError
from medrobust.data.prepare import download, prepare
from medrobust.data.sources import files as module
from medrobust.data.sources.files import SharedCache, copy_folder, open_files
from medrobust.data.store import ImageStore
from tests.data.sources.samples import encoded


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MEMBERS = {
    "a b/é 日本.txt": b"one",
    "a b/2.txt": bytes(3000),
    "c/3.txt": b"",
    "__MACOSX/c/._3.txt": b"x",
    "c/.DS_Store": b"x",
}
VISIBLE = ["a b/2.txt", "a b/é 日本.txt", "c/3.txt"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "folder"])
def test_every_kind_gives_the_same_files(kind: str, tmp_path: Path) -> None:
    if kind == "zip":
        path = zipped(tmp_path / "a.zip", MEMBERS)
    elif kind == "folder":
        path = tmp_path / "folder"
        for name, content in MEMBERS.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        path = tarred(tmp_path / f"a.{kind}", MEMBERS, f"w:{kind[4:]}")
    before = sorted(tmp_path.iterdir())
    files = open_files(path)
    assert files.names == VISIBLE
    assert [files.read(name) for name in files.names] == [MEMBERS[name] for name in VISIBLE]
    assert sorted(tmp_path.iterdir()) == before, "something was unpacked into a named file"


@pytest.mark.parametrize(
    ("kind", "mode"), [("zip", ""), ("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_truncated_archive_is_reported(kind: str, mode: str, share: float, tmp_path: Path) -> None:
    members = {f"{n}.png": encoded(n) for n in range(30)}
    path = tmp_path / f"a.{kind}"
    zipped(path, members) if kind == "zip" else tarred(path, members, mode)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="truncated or not an archive"):
        open_files(path)


@pytest.mark.parametrize("content", [b"", b"I am a text", bytes(5000)])
def test_a_file_that_is_not_an_archive_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"truncated or not an archive"):
        open_files(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/a.png", "..\\a.png", "C:\\a.png", "\\\\host\\a.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unsafe_names_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    zipped(path, {name: b"x"}) if kind == "zip" else tarred(path, {name: b"x"})
    with pytest.raises(UserError, match=r"contains the unsafe name .*a\.png"):
        open_files(path)


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"a\.zip: contains a link \(a\.png\)"):
        open_files(tmp_path / "a.zip")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            info = tarfile.TarInfo("a.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(UserError, match=r"contains a link or device \(a\.png\)"):
            open_files(tmp_path / "a.tar")


def test_a_broken_link_is_reported(params: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "wrap" / "train" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"lost\.png: cannot be read \(No such file or directory\)\. Fix the link"):
        download(params(path=str(folder)), tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"lost\.png: cannot be copied .*Fix the link"):
        copy_folder(folder, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
def test_a_bomb_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLACK", 1 << 20)
    zeros = {"a.png": bytes(20 << 20)}
    path = zipped(tmp_path / "a", zeros) if kind == "zip" else tarred(tmp_path / "a", zeros, f"w:{kind}")
    with pytest.raises(UserError, match=r"unpacks to over .* GB from .* like a zip bomb"):
        open_files(path)


def test_a_zip_with_a_false_size_unpacks_no_more_than_that_size(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(5 << 20)})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.rindex(mark) + offset, 10)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged in a\.zip"):
        open_files(path).read("a.png")


def test_an_unsupported_zip_is_reported(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"x" * 100})
    plain = path.read_bytes()
    for flag, found in ((6, "is encrypted"), (8, "uses the unsupported compression method 9")):
        content, value = bytearray(plain), {6: 1, 8: 9}[flag]
        struct.pack_into("<H", content, content.rindex(b"PK\x03\x04") + flag, value)
        struct.pack_into("<H", content, content.rindex(b"PK\x01\x02") + flag + 2, value)
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{found} .*a\.png.*Create it again"):
            open_files(path)


def test_a_damaged_member_is_a_bad_image(params: Any, tmp_path: Path) -> None:
    members = {
        f"{label}/{n}.png": encoded(n + 10 * len(label)) for label in ("Non Demented", "Mild") for n in range(3)
    }
    path = zipped(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(members["Mild/1.png"]) + 60] ^= 0xFF
    path.write_bytes(content)
    changes = {"path": str(path), "classes": ["Non Demented", "Mild"]}
    download(params(**changes), tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"Mild/1\.png: cannot be decoded \(damaged in a\.zip"):
        prepare(params(**changes), tmp_path / "raw", tmp_path / "prepared")
    prepare(params(**changes, on_bad_image="skip"), tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    assert [row["id"] for row in store.header.skipped] == ["Mild/1.png"]
    assert len(store.images) == 5


def test_a_name_in_utf8_without_the_flag_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"Größe/ä.png": b"x"})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", content, content.rindex(mark) + offset, 0)
    path.write_bytes(content)
    assert open_files(path).names == ["Größe/ä.png"]


def test_the_shared_cache_loads_each_key_once_and_drops_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_THREADS", "1")
    loaded: list[str] = []

    def load(key: str) -> str:
        loaded.append(key)
        return key.upper()

    shared = SharedCache(load)
    threads = [threading.Thread(target=shared, args=("a",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["a"]
    assert [shared(key) for key in "bcab"] == ["B", "C", "A", "B"]
    assert loaded == ["a", "b", "c", "a", "b"]
