"""The model registry names the models that the pipeline publishes."""

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from medrobust.core.params.schema import check_params, load_params
from tests.params import preset, save
from tools import artifacts
from tools import preset as preset_tool
from tools.preset import names


@pytest.mark.parametrize("name", names())
def test_the_artifacts_are_the_models_that_the_pipeline_publishes(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DVC reads them; a name that its tags could not hold would be a warning."""
    shutil.copy(root / "dvc.yaml", tmp_path)
    save(tmp_path, preset(name))
    monkeypatch.chdir(tmp_path)
    artifacts.write_artifacts(load_params())
    repo = Repo.init(str(tmp_path), no_scm=True)
    published = {str(out) for stage in repo.index.stages if stage.name.startswith("publish") for out in stage.outs}
    found = repo.artifacts.read()["models/dvc.yaml"]
    assert {f"models/{artifact.path}" for artifact in found.values()} == published
    assert len(found) == len(published) > 1
    assert {artifact.type for artifact in found.values()} == {"model"}
    assert all(artifact.desc and len(artifact.labels) == 2 for artifact in found.values())


def test_a_preset_is_written_with_its_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["preset", "smoke"])
    preset_tool.main()
    smoke = check_params(preset("smoke"), "smoke")
    assert list(yaml.safe_load(artifacts.FILE.read_text())["artifacts"]) == [
        *(f"{backbone}-{regime}" for backbone in smoke.models for regime in ("clean", "adv")),
        f"ensemble-{smoke.ensemble.regime}",
    ]
    before = artifacts.FILE.stat().st_mtime_ns
    artifacts.write_artifacts(smoke)
    assert artifacts.FILE.stat().st_mtime_ns == before
