"""Data outside the pipeline: an edit runs what reads them, and a machine without them keeps what it has."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.content import content_hash
from medrobust.core.records import write_json
from tests.params import preset, save
from tests.tools import toy
from tools.outside import edited, named_files, reads_outside


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_text("1")
    (tmp_path / "labels.csv").write_text("file,label")
    return tmp_path


def set_data(folder: Path, **data: Any) -> None:
    content = preset("smoke")
    content["data"] |= {"source": "archive", "phantom": None, **data}
    save(folder, content)


def test_data_and_table_are_compared_with_what_was_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", str(folder / "images"))
    set_data(folder, path="$IMAGES", table={"file": "labels.csv", "path": "file", "label": "label"})
    known = {"data.path": content_hash("images"), "data.table.file": content_hash("labels.csv")}
    write_json("raw/source.json", {"source": "archive", "file": "images", "sha256": "", **known})
    assert edited("download", Path("raw")) == ([], [])
    (folder / "labels.csv").write_text("file,labels")
    assert edited("download", Path("raw")) == (["data.table.file"], [])
    (folder / "images" / "2.png").write_text("2")
    assert edited("download", Path("raw")) == (["data.path", "data.table.file"], [])
    monkeypatch.delenv("IMAGES")
    assert edited("download", Path("raw")) == (["data.table.file"], ["data.path"])


def test_data_that_nobody_read_here_are_not_compared(folder: Path) -> None:
    set_data(folder, path="images")
    assert edited("download", Path("raw")) == ([], [])
    write_json("raw/source.json", {"source": "medmnist", "file": "x.npz", "sha256": "abc"})
    assert edited("download", Path("raw")) == ([], [])


def test_external_data_are_compared_with_what_was_read(folder: Path) -> None:
    content = preset("smoke")
    block = {"source": "archive", "classes": {"x": None}, "suites": [], "patient_suites": []}
    content["external"]["sets"] = {"b": {**block, "path": "images"}, "c": {**block, "path": "gone"}}
    save(folder, content)
    for name in ("b", "c", "removed"):
        write_json(f"external/{name}/source.json", {"source": "archive", "data.path": content_hash("images")})
    assert edited("prepare_external@b", Path("external/b")) == ([], [])
    assert edited("prepare_external@c", Path("external/c")) == ([], ["data.path"])
    assert edited("prepare_external@removed", Path("external/removed")) == ([], [])
    (folder / "images" / "1.png").write_text("other")
    assert edited("prepare_external@b", Path("external/b")) == (["data.path"], [])
    assert reads_outside("prepare_external@b")
    assert not reads_outside("train@b")


def test_weights_and_unlabelled_images_are_compared(folder: Path) -> None:
    set_data(folder)
    files = {"labels.csv": content_hash("labels.csv"), "images": content_hash("images"), "gone.pt": "abc"}
    write_json("settings/one/train.json", {"files": files})
    write_json("settings/backbones.json", ["one"])
    assert edited("settings", Path("settings")) == ([], ["gone.pt"])
    (folder / "images" / "1.png").write_text("other")
    assert edited("settings", Path("settings")) == (["images"], ["gone.pt"])


@pytest.mark.slow
def test_an_edit_of_the_data_runs_download_and_what_follows(tmp_path: Path) -> None:
    images = toy.make(tmp_path / "repo", ["one"])
    repo = tmp_path / "repo"
    toy.repro(repo)
    assert toy.ran(toy.repro(repo)) == set()
    (images / "a" / "1.png").write_text("edited")
    assert toy.run(repo, "dvc", "status") == "Data and pipelines are up to date.\n", "else this is not needed"
    told = toy.repro(repo)
    assert "download | data.path has been edited since it was read\n" in told
    assert {"download", "prepare", "train@one", "ensemble"} <= toy.ran(told)
    assert "edited" in (repo / "data" / "prepared" / "list.txt").read_text()
    assert toy.ran(toy.repro(repo, "--jobs", "1")) == set()

    # Back from other data, the run cache knows both states of these; only the present one is right.
    other = tmp_path / "other"
    shutil.copytree(images, other)
    for path in (other, images):
        toy.set_params(repo, ["one"], path)
        toy.repro(repo)
    assert "edited" in (repo / "data" / "prepared" / "list.txt").read_text()
    assert toy.ran(toy.repro(repo)) == set()


@pytest.mark.slow
def test_a_clone_without_the_data_works_and_its_lock_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with the data at different places, and one without them."""
    repo = tmp_path / "repo"
    images = toy.make(repo, ["one"])
    toy.set_params(repo, ["one"], Path("$IMAGES"))
    monkeypatch.setitem(toy.ENVIRONMENT, "IMAGES", str(images))
    toy.repro(repo)
    lock = (repo / "dvc.lock").read_bytes()
    toy.run(repo, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    toy.run(repo, "dvc", "push", "--quiet")
    toy.commit(repo)
    for place in ("elsewhere/repo-images", "nowhere"):
        clone = tmp_path / f"clone-{place[:4]}"
        toy.run(tmp_path, "git", "clone", "--quiet", "repo", str(clone))
        toy.run(clone, "dvc", "pull", "--quiet")
        if place != "nowhere":
            shutil.copytree(images, tmp_path / place)
        monkeypatch.setitem(toy.ENVIRONMENT, "IMAGES", str(tmp_path / place))
        told = toy.repro(clone)
        assert toy.ran(told) == set()
        absent = "data.path is not on this machine; what was read from it before stays in use"
        assert (absent in told) == (place == "nowhere")
        assert (clone / "dvc.lock").read_bytes() == lock
    # A run of its own at another place gives the same lock.
    clone = tmp_path / "clone-else"
    monkeypatch.setitem(toy.ENVIRONMENT, "IMAGES", str(tmp_path / "elsewhere" / "repo-images"))
    toy.run(clone, "dvc", "repro", "--force", "--single-item", "download")
    assert (clone / "dvc.lock").read_bytes() == lock


def test_texts_that_are_paths_are_found_and_no_text_stands_for_the_whole_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGES", str(folder / "images"))
    content = preset("smoke")
    content["data"] |= {"source": "archive", "phantom": None, "path": "$IMAGES", "table": {"file": "labels.csv"}}
    for title in ("a title " * 40, "", "."):
        content["report"]["title"] = title
        save(folder, content)
        assert sorted(named_files(folder)) == sorted([str(folder / "images"), "labels.csv"])
