"""The hash of a file or folder follows its content, and no unchanged file is read twice."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medrobust.core import content
from medrobust.core.content import content_hash
from medrobust.core.errors import UserError


@pytest.fixture(autouse=True)
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in order; files count as old at once."""
    names: list[str] = []

    def file_hash(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(content, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(content, "YOUNG", -60.0)
    monkeypatch.setattr(content, "file_hash", file_hash)
    return names


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a/1.png", "a/2.png", "a-b/3.png", "labels.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def expected(folder: Path) -> str:
    """The hash by another way: all files of `pathlib`, in its order, without hidden ones."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    rows = [
        f"{file.relative_to(folder).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files
    ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "x.zip").write_bytes(b"abc")
    known = hashlib.sha256(b"abc").hexdigest()
    assert [content_hash(tmp_path / "x.zip") for _ in range(3)] == [known] * 3
    assert read == ["x.zip"]


def test_a_folder_is_read_once(images: Path, read: list[str]) -> None:
    assert content_hash(images) == content_hash(images) == expected(images)
    assert sorted(read) == ["1.png", "2.png", "3.png", "labels.csv"]


def keep_times(path: Path, text: str) -> None:
    """Another content of the same length, with the earlier time of the last edit, as `rsync -t` leaves it."""
    facts = path.stat()
    path.write_text(text)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize(
    ("edit", "reads"),
    [
        (lambda folder: (folder / "labels.csv").write_text("other"), ["labels.csv"]),
        (lambda folder: keep_times(folder / "labels.csv", "LABELS.CSV"), ["labels.csv"]),
        (lambda folder: (folder / "new.png").write_text("new"), ["new.png"]),
        (lambda folder: (folder / "a" / "1.png").unlink(), []),
        (lambda folder: (folder / "a" / "1.png").rename(folder / "a" / "9.png"), ["9.png"]),
    ],
    ids=["edited", "edited, size and time kept", "added", "deleted", "renamed"],
)
def test_an_edit_gives_another_hash_and_reads_what_changed(
    images: Path, read: list[str], edit: Callable[[Path], object], reads: list[str]
) -> None:
    before = content_hash(images)
    read.clear()
    edit(images)
    assert content_hash(images) == expected(images) != before
    assert read == reads


def test_what_does_not_count(images: Path, read: list[str]) -> None:
    before = content_hash(images)
    for name in (".DS_Store", "a/._1.png", "Thumbs.db", ".git/config"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_text("x")
    os.utime(images / "a" / "1.png")
    read.clear()
    assert content_hash(images) == before
    assert read == ["1.png"]


def test_a_file_edited_a_moment_ago_is_not_trusted(
    images: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two edits within the resolution of a file system's times would look like one."""
    monkeypatch.setattr(content, "YOUNG", 3600.0)
    content_hash(images)
    content_hash(images)
    assert len(read) == 8
    monkeypatch.setattr(content, "YOUNG", 0.05)
    time.sleep(0.1)
    read.clear()
    for _ in range(2):
        content_hash(images)
    assert len(read) == 4


def test_links_are_followed_and_a_circle_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "5.png").write_text("5")
    before = content_hash(images)
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    linked = content_hash(images)
    (images / "linked").unlink()
    (images / "linked").mkdir()
    (images / "linked" / "5.png").write_text("5")
    assert before != linked == content_hash(images)
    (images / "a" / "up").symlink_to(images)
    with pytest.raises(UserError, match=r"a/up: is a link to a folder that it is in\. Remove the link"):
        content_hash(images)


def test_a_file_that_cannot_be_read_is_named(images: Path) -> None:
    (images / "broken.png").symlink_to("nowhere")
    with pytest.raises(
        UserError, match=r"broken\.png: cannot be read \(No such file or directory\)\. Fix the link"
    ):
        content_hash(images)


def test_a_damaged_cache_costs_a_reading(images: Path, read: list[str]) -> None:
    known = content_hash(images)
    (cache,) = content.CACHE.iterdir()
    for text in ("", "[", '["x", "y"]\nnonsense\n'):
        cache.write_text(text)
        read.clear()
        assert content_hash(images) == known
        assert len(read) == 4
