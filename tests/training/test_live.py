"""Curves of a running training are written where DVCLive leaves git's index alone."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from medrobust.core.records import read_json
from medrobust.training.live import LiveCurves

PIPELINE = "stages: {train: {cmd: train, plots: [plots/one: {cache: false}]}}\n"


@pytest.mark.parametrize(("folder", "added"), [("plots/one", False), ("plots/.one.1.tmp", True)])
def test_inside_an_experiment_curves_are_not_added_to_git(
    folder: str, added: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVCLive adds what it writes outside the outs of a stage, as the second case shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    for command in (
        ["add", "--all"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "a"],
    ):
        subprocess.run(["git", *command], check=True)
    revision = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", revision)
    live = LiveCurves(Path(folder, "live"), Path("metrics", "one.json"))
    live(0, {"loss": 1.25, "val_balanced_accuracy": 0.5, "lr": 0.1})
    live.close()
    staged = subprocess.check_output(["git", "diff", "--cached", "--name-only"], text=True)
    assert bool(staged) is added
    assert read_json("metrics/one.json") == {"epoch": 1, "loss": 1.25, "val_clean": 0.5}
