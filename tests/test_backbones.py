"""A backbone is one block of params.yaml: no other key and no other file names it."""

import json
import shutil
from pathlib import Path
from typing import Any

from medrobust.core.params.schema import check_params
from tests.params import preset, save

ROOT = Path(__file__).resolve().parent.parent


def paths(folder: Path, content: dict[str, Any]) -> dict[str, set[str]]:
    """Each stage of DVC's graph with the paths that it reads and writes, under other parameters."""
    from dvc.repo import Repo

    folder.mkdir()
    save(folder, content)
    shutil.copy(ROOT / "dvc.yaml", folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        stages = repo.index.stages
        return {stage.name: {str(item.def_path) for item in (*stage.outs, *stage.deps)} for stage in stages}


def test_a_backbone_is_replaced_by_editing_one_block(tmp_path: Path) -> None:
    content = preset()
    block = content["models"].pop("resnet34")
    content["models"]["convnext"] = {**block, "timm": "convnext_tiny"}
    params = check_params(content, "params.yaml")
    assert params.detect.cells(params.models) == [("convnext", "clean")]
    before, after = paths(tmp_path / "before", preset()), paths(tmp_path / "after", content)
    text = json.dumps({name: sorted(found) for name, found in after.items()})
    assert "resnet34" not in text
    renamed = {name.replace("resnet34", "convnext"): found for name, found in before.items()}
    assert after == {
        name: {path.replace("resnet34", "convnext") for path in found} for name, found in renamed.items()
    }


def test_every_backbone_has_a_cell_of_each_kind(tmp_path: Path) -> None:
    """Also those that are switched off: DVC's matrix knows no conditions."""
    content = preset()
    content["models"]["added"] = {"timm": "resnet18", "weights": "none", "image_size": 48}
    stages = paths(tmp_path / "run", content)
    assert {"detect@added-clean", "detect@added-adv", "explain@added", "publish@added"} <= set(stages)
    assert check_params(content, "params.yaml").models["added"].detect == []
