"""The commands: answers on stdout that can be piped, messages on stderr, exit codes, and what a bad input says."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from medrobust.cli.group import COMMANDS, commands
from medrobust.core.records import read_json, write_json
from medrobust.inference.predict import predict
from medrobust.models.use import GUARD
from tests.cases import small_run
from tests.data.sources.samples import slice_file
from tests.inference.model_folder import SIDE, picture, write_model
from tests.params import preset, save
from tests.small import CLASSES, make_subset


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_DEVICE", "cpu")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout)))


def write_pictures(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(number)).save(path)
    return paths


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_with_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"Example: medrobust {name}" in re.sub(r"\s+", " ", result.stdout)
    assert name in run("--help").stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from medrobust.cli.group import COMMANDS, commands; "
        "[CliRunner().invoke(commands, [*name, '--help']) for name in ([], *([n] for n in COMMANDS))]; "
        "assert not {'torch', 'pandas', 'numpy', 'matplotlib', 'dvc'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_and_the_script_are_the_command(root: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "medrobust", "--version"], capture_output=True, text=True, check=True
    )
    assert "medrobust" in result.stdout
    script = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]["medrobust"]
    module, _, name = script.partition(":")
    assert callable(getattr(import_module(module), name))


def test_predict_answers_are_those_of_python(model_folder: Path, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in")
    result = run("predict", model_folder, *paths)
    assert result.exit_code == 0, result.stderr
    assert "answered 3 images" in result.stderr
    for row, expected in zip(rows(result), predict(list(paths), model_folder), strict=True):
        assert row["file"] == expected.file
        assert row["label"] == (expected.label or "")
        assert row["rejected"] == str(expected.rejected).lower()
        assert float(row["score"]) == pytest.approx(expected.score, rel=1e-4)
        assert [float(row[f"p_{name}"]) for name in CLASSES] == pytest.approx(
            list(expected.probabilities.values())
        )
        assert row["calibrated"] == "true"
        assert row["model"] == read_json(model_folder / "card.json")["sha256"]


def test_json_has_one_object_per_line_and_out_is_a_file(model_folder: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in")
    result = run("predict", model_folder, tmp_path / "in", "--format", "json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [set(one["probabilities"]) for one in found] == [set(CLASSES)] * 3
    for name in ("a.json", "a.csv"):
        second = run("predict", model_folder, tmp_path / "in", "--out", tmp_path / name)
        assert (second.exit_code, second.stdout) == (0, "")
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
    assert pd.read_csv(tmp_path / "a.csv")["file"].tolist() == [one["file"] for one in found]


def test_a_series_gets_a_row_per_slice_and_one_for_the_patient(model_folder: Path, tmp_path: Path) -> None:
    for index in range(3):
        values = np.random.default_rng(index).integers(900, 1300, (16, 16))
        slice_file(tmp_path / "s" / f"{index}.dcm", values, index * 2.0, "1.2.3")
    result = run("predict", model_folder, tmp_path / "s", "--guard", "none")
    assert result.exit_code == 0, result.stderr
    found = rows(result)
    assert [row["unit"] for row in found] == ["image"] * 3 + ["patient"]
    assert [row["slice"] for row in found] == ["0", "1", "2", ""]
    assert (found[-1]["patient"], found[-1]["images"], found[-1]["score"]) == ("Doe^Jane", "3", "")
    assert "answered 3 images and 1 patient" in result.stderr


def test_maps_are_written_and_named(model_folder: Path, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 2)
    result = run("predict", model_folder, *paths, "--maps", tmp_path / "maps")
    named = [Path(row["map"]) for row in rows(result)]
    assert sorted((tmp_path / "maps").iterdir()) == sorted(named)
    assert [path.name for path in named] == ["00000-0-map.png", "00001-1-map.png"]
    drawn = np.asarray(Image.open(named[0]))
    side = drawn.shape[0]
    assert side >= 256
    assert drawn.shape == (side, 2 * side, 3)
    assert np.array_equal(drawn[:, :side, 0], drawn[:, :side, 2]), "the image itself, in grey"
    assert not np.array_equal(drawn[:, side:, 0], drawn[:, side:, 2]), "the map over it, in orange"


def test_an_ensemble_has_maps_too(ensemble_folder: Path, tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "in", 1)
    result = run("predict", ensemble_folder, path, "--maps", tmp_path / "maps")
    assert result.exit_code == 0, result.stderr
    assert "the model has no guard: no image is rejected" in result.stderr
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_bad_files_are_named_the_others_answered_and_the_exit_code_is_one(
    model_folder: Path, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "in", 2)
    (tmp_path / "in" / "bad\n\x1b[31m.png").write_text("no image")
    (tmp_path / "in" / "notes.txt").write_text("x")
    result = run("predict", model_folder, tmp_path / "in", tmp_path / "none.png")
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result)] == [str(path) for path in paths]
    assert "none.png: no such file" in result.stderr
    assert "bad" in result.stderr
    assert "\x1b" not in result.stderr
    assert "left out what is no image: 1 file" in result.stderr
    assert "answered 2 images; 2 without an answer" in result.stderr


def test_an_image_far_from_the_training_data_is_rejected_with_the_reason_of_the_guard(
    model_folder: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE)).astype(np.uint8) * 255
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (row,) = rows(run("predict", model_folder, tmp_path / "noise.png"))
    assert (row["rejected"], row["label"]) == ("true", "")
    assert re.match(r"gmm: score \S+ is above \S+, which 10.0% of clean images exceed", row["reason"])
    (other,) = rows(run("predict", model_folder, tmp_path / "noise.png", "--detector", "kde"))
    assert other["reason"].startswith("kde: ")


def test_errors_are_one_line_and_exit_code_one(model_folder: Path, tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "in", 1)
    other = write_model(tmp_path / "other", seed=5)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (("predict", tmp_path / "empty", path), "is not a model folder"),
        (("predict", tmp_path / "none", path), "no such folder"),
        (("predict", model_folder, path, "--guard", other / GUARD), "is the guard of another model"),
        (("predict", model_folder, path, "--detector", "lid"), "the guard has no 'lid'"),
        (("predict", model_folder, path, "--device", "abacus"), "device: 'abacus' cannot be used"),
        (("attack", model_folder, path, "--suite", "none"), "there is no 'none'"),
        (("attack", model_folder, path, "--label", "x"), "'x' is not a class"),
        (("attack", model_folder, path, "--eps", "0"), "Use a radius above 0"),
        (("evaluate", model_folder, "--data", tmp_path / "in"), "labels that are not a class of the model"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    (tmp_path / "table.csv").write_text("file\na.png\n")
    result = run("predict", model_folder, tmp_path / "empty", tmp_path / "table.csv", path)
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result)] == [str(path)], "the other files are answered"
    for words in (
        "empty: contains no image",
        "table.csv: no column 'path'",
        "answered 1 image; 2 without an answer",
    ):
        assert words in result.stderr, result.stderr
    assert run("predict", model_folder).exit_code == 2
    assert run("attack", model_folder, path, "--eps", "much").exit_code == 2


@pytest.mark.parametrize("option", ["--out", "--maps"])
def test_a_folder_without_write_permission_is_one_message(option: str, model_folder: Path, tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "in", 1)
    (tmp_path / "file").write_text("not a folder")
    target = tmp_path / "file" / "x.csv"
    result = run("predict", model_folder, path, option, target)
    assert result.exit_code == 1
    assert "cannot be" in result.stderr
    assert not isinstance(result.exception, OSError)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_one_message(model_folder: Path, tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "in", 1)
    (tmp_path / "locked").mkdir(mode=0o555)
    result = run("predict", model_folder, path, "--out", tmp_path / "locked" / "a.csv")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_attack_finds_the_smallest_radius_and_draws_the_change(model_folder: Path, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 2)
    result = run("attack", model_folder, *paths, "--eps", "0.5", "--eps", "1/255", "--pictures", tmp_path / "p")
    assert result.exit_code == 0, result.stderr
    for row, clean in zip(rows(result), predict(list(paths), model_folder, guard=False), strict=True):
        assert row["label"] == row["clean_label"] == clean.label
        assert (row["suite"], row["norm"]) == ("pgd", "Linf")
        assert (row["success"] == "true") == (row["attacked_label"] != row["label"])
        assert float(row["eps"]) in (1 / 255, 0.5)
        drawn = Image.open(row["picture"])
        assert drawn.width == 3 * drawn.height
        assert float(row["change_factor"]) == pytest.approx(0.5 / float(row["eps"]), rel=0.05)
    wrong = next(name for name in CLASSES if name != clean.label)
    (row,) = rows(run("attack", model_folder, paths[-1], "--label", wrong))
    assert (row["success"], row["attack"], float(row["eps"])) == ("true", "natural", 0.0)


def write_labelled(folder: Path) -> None:
    subset = make_subset("x", 6, 4)
    for number, label in enumerate(subset.labels):
        path = folder / CLASSES[label].upper() / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(subset.store_images[number]).save(path)


def test_evaluate_reads_class_folders_and_tables(model_folder: Path, tmp_path: Path) -> None:
    write_labelled(tmp_path / "d")
    result = run("evaluate", model_folder, "--data", tmp_path / "d")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    files = sorted((tmp_path / "d").rglob("*.png"))
    answers = predict(files, model_folder, guard=False)
    right = np.mean([one.label == Path(one.file).parent.name.lower() for one in answers])
    assert record["n"] == record["patients"] == len(files)
    assert record["clean"]["accuracy"] == pytest.approx(right)
    robust = [record["attacks"]["pgd"][eps]["robust_accuracy"] for eps in ("0.1", "0.5")]
    assert robust[1] <= robust[0] <= record["clean"]["accuracy"]
    for name, row in record["detectors"].items():
        above = [bool(one.rejected) for one in predict(files, model_folder, detector=name)]
        assert row["false_alarms"] == pytest.approx(np.mean(above))
        assert row["nominal"] == 0.1
        assert set(row["rejected_attacked"]) == {"pgd"}
    table = pd.DataFrame({
        "path": [str(path.relative_to(tmp_path)) for path in files], "label": [path.parent.name for path in files],
        "patient": [str(number // 2) for number in range(len(files))],
    })  # fmt: skip
    table["label"] = table["label"].replace({"A": "first"})
    table.to_csv(tmp_path / "t.csv", index=False)
    second = run(
        "evaluate", model_folder, "--data", tmp_path / "t.csv", "--suite", "none", "--map", "first=a", "--out",
        tmp_path / "r.json",
    )  # fmt: skip
    assert second.exit_code == 0, second.stderr
    again = read_json(tmp_path / "r.json")
    assert again["clean"]["accuracy"] == pytest.approx(right, abs=1e-6)
    assert (again["patients"], again["attacks"]) == (len(files) // 2, {})
    assert run("evaluate", model_folder, "--data", tmp_path / "t.csv", "--map", "first").exit_code == 2


def test_cases_writes_the_page_of_single_images(tmp_path: Path) -> None:
    write_json(tmp_path / "cases.json", small_run.cases())
    out = tmp_path / "new" / "cases.html"
    result = run("cases", out, "--cases", tmp_path / "cases.json", "--title", "a title")
    assert result.exit_code == 0, result.stderr
    assert f"{len(small_run.cases()['cases'])} images" in result.stderr
    text = out.read_text()
    assert "<title>a title: single images</title>" in text
    assert "one, adversarial training" in text
    assert "index.html" not in text, "there is no report beside it"


@pytest.mark.parametrize("content", [None, {}, [], {"n": 1}])
def test_cases_needs_images_that_the_pipeline_collected(tmp_path: Path, content: Any) -> None:
    if content is not None:
        write_json(tmp_path / "cases.json", content)
    result = run("cases", tmp_path / "page.html", "--cases", tmp_path / "cases.json")
    assert result.exit_code == 1
    found = "no such file" if content is None else "contains no images"
    assert f"cases.json: {found}" in result.stderr
    assert "report.cases" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_doctor_names_what_is_there_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outside = run("doctor")
    assert outside.exit_code == 0
    for words in ("python ", "torch ", "device that is used: cpu", "this folder has no dvc.yaml"):
        assert words in outside.stdout
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.delenv("MEDROBUST_DATA", raising=False)
    changed = preset("alzheimer-cpu")
    save(tmp_path, changed)
    assert (
        "missing: data.path: $MEDROBUST_DATA/alzheimer-11519.zip does not exist; set the var"
        in run("doctor").stdout
    )
    monkeypatch.setenv("MEDROBUST_DATA", str(tmp_path))
    (tmp_path / "alzheimer-11519.zip").touch()
    assert f"data.path: {tmp_path}/alzheimer-11519.zip\n" in run("doctor").stdout
    (tmp_path / "params.yaml").unlink()
    inside = run("doctor")
    assert inside.exit_code == 1
    assert "missing: dvc.lock: no run is recorded" in inside.stdout
    assert "params.yaml: no such file" in inside.stdout
    assert "DVC remotes: none" in inside.stdout
