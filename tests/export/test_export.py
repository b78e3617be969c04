"""An export: the file, its card, what is refused, and that a wrong file is never left."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from medrobust.cli.export import export
from medrobust.core.errors import UserError
from medrobust.core.records import file_hash
from medrobust.export import onnx_file, run
from medrobust.export.onnx_file import OnnxModel, write_onnx
from medrobust.export.parity import Comparison, check_parity, compare
from medrobust.export.run import ExportData, export_onnx
from medrobust.models.combination import Combination
from medrobust.models.ensemble import save_ensemble
from medrobust.models.folder import load
from medrobust.report.publish.parts import copy_members
from tests.export.conftest import write_model
from tests.inference.model_folder import write_use
from tests.small import fit, make_classifier, make_subset

MODEL = Path("models", "small", "clean")


@pytest.fixture(scope="module")
def done(place: Path) -> tuple[Result, Path]:
    """The command's result and the folder that it wrote."""
    data = place / "data"
    options = [
        "--prepared",
        data / "prepared",
        "--split",
        data / "split.csv",
        "--suites",
        data / "resolved" / "suites",
    ]
    out = place / "exported"
    arguments = [str(part) for part in (place / MODEL, out, "--images", 6, *options)]
    return CliRunner().invoke(export, arguments, catch_exceptions=False), out


def test_the_command_writes_three_files_and_says_what_it_compared(done: tuple[Result, Path]) -> None:
    result, out = done
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "model.onnx"]
    lines = result.output.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["clean", "pgd, ε 0.01 (Linf)", "pgd, ε 0.05 (Linf)"]
    assert all("6 of 6 answers are the same" in line for line in lines[:-1])


def test_the_card_tells_what_was_compared(done: tuple[Result, Path], place: Path) -> None:
    out = done[1]
    card = json.loads((out / "card.json").read_text())
    assert card["file"]["sha256"] == file_hash(out / "model.onnx")
    assert card["weights"] == json.loads((place / MODEL / "card.json").read_text())["sha256"]
    assert card["classes"] == ["Non", "Mild"]
    assert card["input"]["shape"] == ["images", 1, "height", "width"]
    assert [row["n"] for row in card["compared"]] == [6, 6, 6]
    assert all(row["largest"] < 1e-4 and row["accuracy"] == row["exported_accuracy"] for row in card["compared"])
    text = (out / "README.md").read_text()
    assert "| pgd, ε 0.05 (Linf) | 6 | 6 |" in text
    assert "(1, 1, 32, 32)" in text


@pytest.mark.parametrize("kind", ["B", pytest.param("ensemble", marks=pytest.mark.slow)])
def test_a_published_folder_is_exported_and_its_card_has_a_table_of_all_that_was_compared(
    kind: str, place: Path, data: ExportData, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / kind / "adv"
    if kind == "ensemble":
        facts = {"method": "equal", "regime": "adv", "fitted_on": "x"}
        members = {"a": place / MODEL, "b": write_model(tmp_path / "b", ["Non", "Mild"], seed=1)}
        save_ensemble(tmp_path / "fitted", members, Combination(weights=[0.5, 0.5]), facts)
        copy_members(tmp_path / "fitted", folder)
        shutil.rmtree(tmp_path / "b")
    else:
        shutil.copytree(place / MODEL, folder)
    write_use(folder)
    (folder / "README.md").write_text("the card of the model")
    found = export_onnx(folder, tmp_path / "out", data)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["source"] == f"{kind}/adv"
    lines = (tmp_path / "out" / "README.md").read_text().splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    assert head == [
        "images", "n", "same answers", "largest difference of a probability", "accuracy, original",
        "accuracy, exported",
    ]  # fmt: skip
    assert rows == [
        [each.images, str(each.n), str(each.same), f"{each.largest:.1e}", f"{each.accuracy:.3f}",
         f"{each.exported_accuracy:.3f}"]
        for each in found
    ]  # fmt: skip
    assert [(row[0], row[1]) for row in rows] == [
        ("clean", "6"), ("pgd, ε 0.01 (Linf)", "6"), ("pgd, ε 0.05 (Linf)", "6")
    ]  # fmt: skip


def test_the_file_takes_any_number_and_size_of_images_and_holds_no_path(
    done: tuple[Result, Path], place: Path
) -> None:
    exported, model = OnnxModel(done[1] / "model.onnx"), load(place / MODEL)
    for shape in ((1, 1, 32, 32), (5, 1, 32, 32), (3, 1, 24, 24), (2, 1, 50, 41), (2, 1, 12, 12)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(images).softmax(1).numpy()
        assert np.abs(exported.probabilities(images) - expected).max() < 1e-4, shape
    content = (done[1] / "model.onnx").read_bytes()
    assert b".py" not in content
    assert b"Non,Mild" in content


@pytest.mark.slow
def test_an_earlier_export_is_replaced_by_the_same_bytes(
    done: tuple[Result, Path], place: Path, data: ExportData
) -> None:
    before = {path.name: path.read_bytes() for path in done[1].iterdir()}
    export_onnx(place / MODEL, done[1], data)
    assert {path.name: path.read_bytes() for path in done[1].iterdir()} == before


class Off(OnnxModel):
    """A file whose answers are slightly wrong."""

    def __init__(self, path: Path) -> None:
        assert path.is_file()

    def probabilities(self, images: Tensor) -> np.ndarray:
        return np.full((len(images), 2), 0.5, dtype=np.float32)


def test_an_export_that_differs_is_not_kept_and_an_earlier_one_stays(
    place: Path, data: ExportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OnnxModel", Off)
    monkeypatch.setattr(run, "write_onnx", lambda model, example, path, facts: path.write_bytes(b"x"))
    (tmp_path / "card.json").write_text("earlier")
    with pytest.raises(
        UserError, match=r"a probability differs from the original by 0\.\d+ on .* \(limit 0\.001\)"
    ):
        export_onnx(place / MODEL, tmp_path, data)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def row(largest: float) -> Comparison:
    return Comparison("clean", False, 4, 4, largest, 0.5, 0.5)


@pytest.mark.parametrize("largest", [0.0011, float("nan")])
def test_the_largest_difference_decides(largest: float) -> None:
    check_parity([row(0.0), row(0.0009)])
    with pytest.raises(UserError, match="differs from the original"):
        check_parity([row(0.0), row(largest), row(0.0)])


def test_a_comparison_counts_answers_and_measures_both_accuracies() -> None:
    """Against an export that answers class 0 everywhere; attacked images are worse for the original."""
    subset = make_subset("test", 9, 2)
    model = fit(make_classifier(), make_subset("train", 30, 0), steps=60)
    suite = {
        "name": "s",
        "norm": "Linf",
        "eps": [0.1],
        "attacks": [{"name": "pgd", "hyperparameters": {"steps": 4}}],
    }
    always = np.eye(3, dtype=np.float32)[0]
    clean, attacked = compare(model, lambda images: np.tile(always, (len(images), 1)), [subset], [suite], seed=0)
    with torch.no_grad():
        answers = model(subset.batch(range(len(subset)))).argmax(1).numpy()
    assert (clean.n, clean.same) == (36, int((answers == 0).sum()))
    assert clean.accuracy == pytest.approx((answers == subset.labels).mean())
    assert clean.exported_accuracy == attacked.exported_accuracy == pytest.approx((subset.labels == 0).mean())
    assert attacked.accuracy < clean.accuracy
    assert clean.largest > 0.3


class Undecided(nn.Module):
    """A network whose path depends on the pixels, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :2]
        return logits if bool(images.mean() > 0.5) else -logits


def test_a_model_that_onnx_cannot_express_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be expressed in ONNX \(Could not guard on data-dependent"):
        write_onnx(Undecided(), torch.rand(2, 1, 8, 8), tmp_path / "m.onnx", {})
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_with_its_command(
    place: Path, data: ExportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=r"onnxscript is not installed.*\n?.*pip install medrobust\[onnx\]"):
        export_onnx(place / MODEL, tmp_path / "out", data)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("file", "is a file"),
        ("other files", r"holds other files \(thesis.docx\)"),
        ("no suites", "has no suite of attacks"),
        ("no images", "no such file"),
        ("no model", "no such file"),
        ("other classes", r"have the classes \['Non', 'Mild'\], the model \['x', 'y'\]"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    kind: str, message: str, place: Path, data: ExportData, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", place / MODEL
    match kind:
        case "file":
            out.write_text("")
        case "other files":
            out.mkdir()
            (out / "thesis.docx").write_text("precious")
        case "no suites":
            data = replace(data, suites=tmp_path)
        case "no images":
            data = replace(data, prepared=tmp_path)
        case "no model":
            model = tmp_path
        case "other classes":
            model = write_model(tmp_path / "model", ["x", "y"])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        export_onnx(model, out, data)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["--images", "0"], ["--to", "tflite"], ["--images", "many"]])
def test_the_command_refuses_wrong_options(arguments: list[str], place: Path) -> None:
    result: Any = CliRunner().invoke(export, [str(place / MODEL), "out", *arguments])
    assert result.exit_code == 2
    assert "Invalid value" in result.output
