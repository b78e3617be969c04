"""What belongs to no stage goes, and nothing else; nothing goes that is saved nowhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tests.tools import toy
from tools.prune import Pipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A repository in which two backbones ran and everything is committed, and the folder of its data."""
    folder = tmp_path_factory.mktemp("toy") / "repo"
    images = toy.make(folder, ["one", "two"])
    toy.repro(folder)
    toy.commit(folder)
    return folder, images


@pytest.fixture
def repo(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    folder, images = finished
    shutil.copytree(folder, tmp_path / "repo")
    shutil.copytree(images, tmp_path / "repo-images")
    toy.set_params(tmp_path / "repo", ["one", "two"], images)
    return tmp_path / "repo"


def prune(folder: Path, *options: str) -> str:
    return toy.run(folder, sys.executable, "-m", "tools.prune", *options)


def locked(folder: Path) -> set[str]:
    return set(yaml.safe_load((folder / "dvc.lock").read_text())["stages"])


def test_a_removed_backbone_leaves_no_trace_and_a_clone_that_pulls_runs_nothing(
    repo: Path, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    toy.set_params(repo, ["one"], finished[1])
    told = toy.repro(repo)
    assert "removed, because no stage writes it (DVC's cache has it): data/checkpoints/two\n" in told
    assert toy.ran(told) == {"ensemble", "report"}
    assert (repo / "data" / "ensemble.txt").read_text() == "one\n"
    assert "run `make prune`: metrics/train/two.json; dvc.lock: train@two\n" in told
    assert "train@two" in locked(repo), "what git tracks is removed only on demand"

    told = prune(repo)
    assert "removed: metrics/train/two.json\nremoved from dvc.lock: train@two\nRun `make repro`" in told
    assert locked(repo) == {"download", "prepare", "train@one", "ensemble", "report"}
    assert toy.ran(toy.repro(repo)) == {"report"}
    told = toy.repro(repo)
    assert toy.ran(told) == set()
    assert "prune" not in told
    assert prune(repo) == "There is nothing to prune.\n"

    toy.run(repo, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    toy.run(repo, "dvc", "push", "--quiet")
    toy.commit(repo)
    toy.run(tmp_path, "git", "clone", "--quiet", "repo", "clone")
    toy.run(tmp_path / "clone", "dvc", "pull", "--quiet")
    assert toy.run(tmp_path / "clone", "dvc", "status") == "Data and pipelines are up to date.\n"

    # The backbone comes back: its results too, without computing.
    toy.set_params(repo, ["one", "two"], finished[1])
    assert "Stage 'train@two' is cached - skipping run" in toy.repro(repo)
    assert (repo / "metrics" / "train" / "two.json").is_file()


def test_another_run_in_between_costs_no_training_even_without_a_run_cache(
    repo: Path, finished: tuple[Path, Path]
) -> None:
    """As in a clone that has pulled: the outs of the lock come back from the cache."""
    toy.set_params(repo, ["one"], finished[1])
    toy.repro(repo)
    shutil.rmtree(repo / ".dvc" / "cache" / "runs")
    toy.run(repo, "git", "checkout", "--", "params.yaml", "dvc.lock")
    toy.set_params(repo, ["one", "two"], finished[1])
    assert not [name for name in toy.ran(toy.repro(repo)) if name.startswith("train")]
    assert (repo / "data" / "checkpoints" / "two" / "clean" / "model").read_text() == "two\n"


def test_folders_that_may_have_other_files_are_not_the_pipelines() -> None:
    """Of the project's own dvc.yaml: all of metrics and plots, and the folders of cells; not data, nor the top."""
    with Repo(str(toy.ROOT)) as repo:
        found = {path.relative_to(toy.ROOT).as_posix() for path in Pipeline(repo).folders}
    assert {"metrics", "plots", "models", "data/checkpoints", "data/attacks", "data/resolved/suites"} <= found
    assert not found & {"", ".", "data", "data/resolved", "data/raw", "data/prepared", "report"}


def test_what_the_pipeline_did_not_write_stays(repo: Path, finished: tuple[Path, Path]) -> None:
    """Files of the user in folders of results are named; beside them nobody looks."""
    mine = ["data/checkpoints/mine/weights.pt", "metrics/notes.txt", "metrics/train/old.json"]
    elsewhere = ["data/own/1.png", "notes.txt", "data/checkpoints/.DS_Store", "metrics/.gitkeep"]
    elsewhere.append("models/dvc.yaml")
    for name in mine + elsewhere:
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(f"only here: {name}")
    told = toy.repro(repo)
    assert "run `make prune`: data/checkpoints/mine, metrics/notes.txt, metrics/train/old.json\n" in told
    told = prune(repo)
    for name in ("data/checkpoints/mine", *mine[1:]):
        assert f"kept, because neither git nor DVC has it (FORCE=1): {name}\n" in told
    assert all((repo / name).is_file() for name in mine + elsewhere)
    prune(repo, "--force")
    assert not [name for name in mine if (repo / name).exists()]
    assert all((repo / name).is_file() for name in elsewhere)


def test_files_that_params_yaml_names_are_in_use(repo: Path) -> None:
    (repo / "data" / "checkpoints" / "mine.safetensors").write_text("weights")
    text = (repo / "params.yaml").read_text()
    (repo / "params.yaml").write_text(
        text.replace("weights: none", "weights: data/checkpoints/mine.safetensors", 1)
    )
    assert "mine" in (repo / "params.yaml").read_text()
    assert "There is nothing to prune" in prune(repo, "--force")


def test_an_edited_result_of_git_is_not_saved(repo: Path, finished: tuple[Path, Path]) -> None:
    toy.set_params(repo, ["one"], finished[1])
    (repo / "metrics" / "train" / "two.json").write_text('{"edited": 1}')
    assert "kept, because neither git nor DVC has it (FORCE=1): metrics/train/two.json" in prune(repo)


def test_strays_change_nothing(repo: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    strays = [f"data/checkpoints/.two.{dead.pid}.tmp", f"metrics/.a.{dead.pid}.tmp.json", "metrics/.DS_Store"]
    for name in (*strays, "metrics/train/._one.json", "data/checkpoints/one/clean/.model.1.tmp.pt"):
        (repo / name).write_text("stray")
    assert toy.run(repo, "dvc", "status") == "Data and pipelines are up to date.\n"
    assert toy.run(repo, "git", "status", "--short", "metrics") == ""
    assert toy.ran(toy.repro(repo)) == set()
    assert [name for name in strays if (repo / name).exists()] == ["metrics/.DS_Store"]


def test_results_of_other_data_are_cleared(repo: Path, tmp_path: Path) -> None:
    """The run on the user's own data fails half-way: what it did not reach is of the demonstration's."""
    own = tmp_path / "own"
    (own / "a").mkdir(parents=True)
    (own / "a" / "1.png").write_text("own")
    text = (repo / "dvc.yaml").read_text()
    (repo / "dvc.yaml").write_text(
        text.replace("mkdir -p data/checkpoints", "test ! -e stop && mkdir -p data/checkpoints")
    )
    toy.commit(repo)
    (repo / "stop").touch()
    toy.set_params(repo, ["one", "two"], own)
    toy.run(repo, sys.executable, "-m", "tools.repro", code=1)
    told = prune(repo)
    assert "removed: metrics/ensemble.json\n" in told
    assert locked(repo) == {"download", "prepare", "report"}
    assert (repo / "data" / "prepared" / "list.txt").is_file()
    (repo / "stop").unlink()
    assert "Data and pipelines are up to date." in toy.repro(repo)
    diff = toy.run(repo, sys.executable, "-m", "tools.same_data")
    assert diff == "Not compared: the results of HEAD are of other data than those of dvc.lock here.\n"


def test_metrics_of_the_same_data_are_compared_and_others_named(repo: Path, finished: tuple[Path, Path]) -> None:
    toy.set_params(repo, ["one"], finished[1])
    text = (repo / "dvc.yaml").read_text()
    (repo / "dvc.yaml").write_text(text.replace('"a": 1', '"a": 2'))
    assert '"a": 2' in (repo / "dvc.yaml").read_text()
    toy.repro(repo)
    prune(repo)
    diff = toy.run(repo, sys.executable, "-m", "tools.same_data", "HEAD")
    (row,) = [line for line in diff.splitlines() if line.startswith("| metrics/ensemble.json")]
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["a", "1", "2", "1"]
    assert "Not compared, because only one run has them, or of other data: metrics/train/two.json" in diff
    told = toy.run(repo, sys.executable, "-m", "tools.same_data", "nowhere", code=1)
    assert told == "nowhere has no dvc.lock to compare with.\n"
