"""DVC's own graph: a suite's cells wait for the surrogate that it names, and no other cells do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.params import preset, save

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def ancestors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], set[str]]:
    """Stage -> the names of all stages that run before it, with a suite that tries images of resnet34-adv."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("graph")
    params = preset()
    attacks = [{"name": "transfer", "source": "resnet34-adv"}]
    params["attacks"]["suites"]["moved"] = {"norm": "Linf", "eps": [0.01], "attacks": attacks}
    params["attacks"]["surrogates"] = [{"suite": "moved", "backbone": "resnet34", "regime": "adv"}]
    save(folder, params)
    shutil.copy(ROOT / "dvc.yaml", folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        graph = repo.index.graph  # an edge leads from a stage to one that it depends on
    nodes = {stage.name: stage for stage in graph}

    def found(name: str) -> set[str]:
        before = {stage.name for stage in graph.successors(nodes[name])}
        return before.union(*map(found, before))

    return found


@pytest.mark.parametrize("cell", ["attack@dinov2-clean-moved", "attack@resnet34-adv-moved", "check@dinov2"])
def test_who_tries_its_images_runs_after_the_surrogate(cell: str, ancestors: Callable[[str], set[str]]) -> None:
    assert {"surrogate@surrogate0", "adv_train@resnet34"} <= ancestors(cell)


@pytest.mark.parametrize(
    "cell", ["attack@dinov2-clean-white_box", "attack@efficientnet_b0-clean-white_box", "suite@moved"]
)
def test_nobody_else_waits_for_it(cell: str, ancestors: Callable[[str], set[str]]) -> None:
    assert not {"surrogate@surrogate0", "adv_train@resnet34"} & ancestors(cell)
