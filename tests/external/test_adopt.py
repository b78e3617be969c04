"""A result of `medrobust evaluate` is taken over for a model of the run, and for no other."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from medrobust.cli.group import commands
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.records import read_json, read_metrics, write_json
from medrobust.external.adopt import KEYS, adopt_result
from medrobust.models.card import weights_hash
from tests.inference.model_folder import SUITE
from tests.small import CLASSES, make_subset


@pytest.fixture(scope="module")
def result(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote; one of the files could not be read."""
    folder = tmp_path_factory.mktemp("evaluated")
    subset = make_subset("x", 6, 3)
    for number, label in enumerate(subset.labels):
        path = folder / "in" / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(subset.store_images[number]).save(path)
    (folder / "in" / "a" / "Doe-John.png").write_text("no image")
    arguments = ["evaluate", model_folder, "--data", folder / "in", "--out", folder / "external.json"]
    CliRunner().invoke(commands, [*map(str, arguments)])
    return folder / "external.json"


def test_the_numbers_are_taken_over_without_names_of_files(
    result: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluated0.json"
    adopt_result(result, "hospital", [model_folder], out)
    record, content = read_metrics(out), read_json(result)
    assert record["set"] == "hospital"
    assert (record["n"], record["skipped"]) == (24, 1)
    assert record["clean"] == content["clean"]
    assert record["attacks"] == content["attacks"]
    assert record[MADE_ON] == {"weights": weights_hash(model_folder), "suites": {"pgd": suite_hash(SUITE)}}
    assert "Doe" not in out.read_text()
    shown = read_json(out)
    assert shown["balanced_accuracy"] == pytest.approx(content["clean"]["balanced_accuracy"], abs=0.01)


def test_a_result_of_another_model_is_refused(result: Path, ensemble_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"external\.json: is the result of another model \(sha256 .*external\.evaluated"
    ):
        adopt_result(result, "hospital", [ensemble_folder], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [({"model": "x"}, "it lacks suites, skipped, n"), ([1], "it holds no JSON object")],
)
def test_another_file_is_refused(content: Any, found: str, tmp_path: Path) -> None:
    write_json(tmp_path / "e.json", content)
    with pytest.raises(UserError, match=rf"e\.json: is not a result of this version: {found}.*medrobust evaluate"):
        adopt_result(tmp_path / "e.json", "hospital", [], tmp_path / "out.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"e\.json: no such file"):
        adopt_result(tmp_path / "e.json", "hospital", [], tmp_path / "out.json")


def test_the_command_writes_every_key(result: Path) -> None:
    assert {*KEYS} == {*read_json(result)}
