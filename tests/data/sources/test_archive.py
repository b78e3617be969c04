"""Archives and folders as users have them; damaged ones are reported."""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medrobust.core.errors import UserError
from medrobust.data.prepare import download, prepare
from medrobust.data.sources.base import get_source
from medrobust.data.sources.registry import SOURCES
from medrobust.data.store import ImageStore
from tests.data.sources.samples import encoded


def pack(folder: Path, kind: str) -> Path:
    """Return the folder itself, or pack it as a zip or tar."""
    if kind == "folder":
        return folder
    path = folder.with_suffix(f".{kind}")
    files = [file for file in folder.rglob("*") if file.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_every_kind_gives_the_same_store(kind: str, folder: Path, params: Any, tmp_path: Path) -> None:
    data = params(path=str(pack(folder, kind)))
    download(data, tmp_path / "raw", seed=0)
    prepare(data, tmp_path / "raw", tmp_path / "prepared")
    store = ImageStore.open(tmp_path / "prepared")
    assert store.header.counts == {"Non Demented": 6, "Mild_Demented": 6}
    assert store.manifest["published_split"].value_counts().to_dict() == {"train": 6, "test": 6}
    assert (store.manifest["patient"] == "").all()
    assert store.images.shape == (12, 16, 16)


def test_variables_in_the_path(folder: Path, params: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_DATA", raising=False)
    with pytest.raises(UserError, match=r"\$MY_DATA is not set.*export MY_DATA="):
        download(params(path="$MY_DATA/raw data"), tmp_path / "raw", seed=0)
    assert not (tmp_path / "raw").exists()
    monkeypatch.setenv("MY_DATA", str(folder.parent))
    download(params(path="$MY_DATA/raw data"), tmp_path / "raw", seed=0)


def test_a_missing_or_wrong_file_is_reported(folder: Path, params: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path: null"):
        download(params(path=None), tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match="no such file"):
        download(params(path=str(tmp_path / "none.zip")), tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"sha256 is .* data.sha256 is 00"):
        download(params(path=str(pack(folder, "zip")), sha256="00"), tmp_path / "raw", seed=0)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_truncated_archive_is_reported(kind: str, folder: Path, params: Any, tmp_path: Path) -> None:
    path = pack(folder, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    data = params(path=str(path))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=f"{kind}: truncated or not an archive"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def zip_as_windows(path: Path, members: dict[str, bytes]) -> None:
    """A zip whose names are stored to the letter, as tools on Windows write them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 0
            archive.writestr(info, content)


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
@pytest.mark.parametrize("empty", [[], ["top\\", "top\\train\\Non Demented\\"]])
def test_backslashes_separate_folders(kind: str, empty: list[str], params: Any, tmp_path: Path) -> None:
    names = [
        rf"top\{split}\{label}\1.png" for split in ("train", "Test") for label in ("Non Demented", "mild-demented")
    ]
    members = dict.fromkeys(empty, b"") | {name: encoded(number) for number, name in enumerate(names)}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zip_as_windows(path, members)
    else:
        folder = tmp_path / "names"  # as an unpacker on Linux leaves them
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(members[name])
        path = pack(folder, kind)
    data = params(path=str(path))
    download(data, tmp_path / "raw", seed=0)
    prepare(data, tmp_path / "raw", tmp_path / "prepared")
    manifest = ImageStore.open(tmp_path / "prepared").manifest
    assert sorted(manifest["id"]) == sorted(name.replace("\\", "/") for name in names)
    assert manifest["published_split"].value_counts().to_dict() == {"train": 2, "test": 2}


def test_names_that_differ_only_in_slashes_are_refused(params: Any, tmp_path: Path) -> None:
    zip_as_windows(tmp_path / "a.zip", {"Non Demented/a.png": encoded(0), "Non Demented\\a.png": encoded(1)})
    data = params(path=str(tmp_path / "a.zip"))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"contains both Non Demented/a\.png and Non Demented\\a\.png. Rename"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


@pytest.mark.parametrize(
    "name",
    [
        "../Non Demented/a.png", "/Non Demented/a.png", r"..\Non Demented\a.png", r"\Non Demented\a.png",
        r"C:\Non Demented\a.png", r"x\..\..\Non Demented/a.png", r"\\host\share\Non Demented\a.png",
    ],
)  # fmt: skip
def test_unsafe_names_are_refused(name: str, params: Any, tmp_path: Path) -> None:
    zip_as_windows(tmp_path / "a.zip", {name: b"x"})
    data = params(path=str(tmp_path / "a.zip"))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match="unsafe name"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


def test_links_in_a_tar_are_refused(params: Any, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("Non Demented/a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    data = params(path=str(tmp_path / "a.tar"))
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match="contains a link or device"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


def test_a_folder_that_is_not_a_class_is_reported(folder: Path, params: Any, tmp_path: Path) -> None:
    data = params(path=str(folder), classes=["Non Demented", "Severe"])
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=r"mild-demented.* is not in a folder that is named like a class"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


def test_a_class_without_an_image_is_reported(folder: Path, params: Any, tmp_path: Path) -> None:
    data = params(path=str(folder), classes=["Non Demented", "Mild Demented", "Severe"])
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match="Severe: no image of this class"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=f"no source 'ftp'.*{', '.join(SOURCES)}"):
        get_source("ftp")


def test_pictures_of_every_ending_are_read_and_other_files_are_counted(params: Any, tmp_path: Path) -> None:
    kinds = {"jfif": "JPEG", "JPE": "JPEG", "pgm": "PPM", "jp2": "JPEG2000", "Tga": "TGA", "dib": "DIB"}
    for label in ("Non Demented", "Mild"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number, (ending, kind) in enumerate(kinds.items()):
            pixels = np.random.default_rng([number, len(label)]).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.{ending}", kind)
        for name in ("x.DCM", "x.heic", "noext"):
            (tmp_path / "data" / label / name).write_bytes(b"x")
    data = params(path=str(tmp_path / "data"), classes=["Non Demented", "Mild"])
    download(data, tmp_path / "raw", seed=0)
    prepare(data, tmp_path / "raw", tmp_path / "prepared")
    header = ImageStore.open(tmp_path / "prepared").header
    assert header.counts == {"Non Demented": 6, "Mild": 6}
    assert [(entry["reason"], entry["count"]) for entry in header.unused] == [
        ("ending .dcm", 2), ("ending .heic", 2), ("ending none", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.DCM", "b.dcm", "notes.txt"],
            r"\(2 with ending \.dcm, 1 with ending \.txt\)\. Set data\.source: dicom",
        ),
        (["a.nii.GZ", "b.nii"], r"\(2 with ending \.nii\)\. Set data\.source: nifti"),
        (["a.heic", "b.heic", "t.parquet"], r"2 with ending \.heic.*Use files with the suffix .*another data"),
        (["a"], r"\(1 with ending none\)"),
    ],
)
@pytest.mark.parametrize("with_table", [False, True])
def test_data_without_pictures_name_the_source_that_reads_them(
    names: list[str], message: str, with_table: bool, params: Any, tmp_path: Path
) -> None:
    (tmp_path / "data" / "Mild").mkdir(parents=True)
    for name in names:
        (tmp_path / "data" / "Mild" / name).write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path,label\na,Mild\n")
    block = {"file": str(tmp_path / "t.csv")} if with_table else None
    data = params(path=str(tmp_path / "data"), classes=["Non Demented", "Mild"], table=block)
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match=f"contains no image, but other files .*{message}"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")


def test_data_all_of_which_are_left_out_have_no_image_of_a_class(
    folder: Path, params: Any, tmp_path: Path
) -> None:
    data = params(path=str(folder), ignore=["*"], classes=["Non Demented", "Mild Demented"])
    download(data, tmp_path / "raw", seed=0)
    with pytest.raises(UserError, match="Non Demented: no image of this class"):
        prepare(data, tmp_path / "raw", tmp_path / "prepared")
