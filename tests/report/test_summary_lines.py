"""The first lines of the report: which models were trained on which data, from the checkpoints' cards."""

import re
from pathlib import Path
from typing import Any

import pytest

from medrobust.core.records import read_json, write_json
from medrobust.report.charts.robustness import training_mark
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.tables import accuracy as tables
from medrobust.report.tables.summary_lines import summary_lines
from tests.report.runs import SETTINGS, read


def change(folder: Path, backbone: str, regime: str, block: str, **values: Any) -> None:
    """Other values in a block of a checkpoint's card."""
    path = folder / "data" / "checkpoints" / backbone / regime / "card.json"
    card = read_json(path)
    card["params"][block] |= values
    write_json(path, card)


def test_data_backbones_and_radius_open_the_report(folder: Path) -> None:
    lines = summary_lines(read(folder), "patient")
    assert lines[:2] == [
        "12 synthetic images of 6 simulated patients (phantom, 8 pixels), split by patient. No scanner made them: "
        "no number here says anything about real patients.",
        "Trained from random weights, all layers: one (timm's resnet10t, 32 pixels), two (timm's resnet10t, 32 "
        "pixels). Then trained adversarially, at ε = 0.01.",
    ]
    assert "# a title\n\n" + "\n\n".join(lines) in render_markdown(page_content(read(folder), SETTINGS))
    html = render_html(page_content(read(folder), SETTINGS), {}).replace("&#39;", "'")
    assert html.index(lines[0]) < html.index(lines[1]) < html.index('id="verdicts"')


@pytest.mark.parametrize(
    ("weights", "trainable", "start"),
    [
        ("pretrained", "head", "timm's pretrained weights, the head alone"),
        (
            "/some/where/start.safetensors",
            "last:2",
            "the weights in start.safetensors, the last 2 blocks and the head",
        ),
    ],
)
def test_each_start_has_its_line(folder: Path, weights: str, trainable: str, start: str) -> None:
    change(folder, "two", "clean", "model", weights=weights, trainable=trainable)
    found = summary_lines(read(folder), "patient")[1]
    assert found.startswith("Trained from random weights, all layers: one (")
    assert f"Trained from {start}: two (" in found
    assert "/some" not in found


def test_images_of_scanners_are_not_called_synthetic(folder: Path) -> None:
    path = folder / "data" / "prepared" / "header.json"
    write_json(path, {**read_json(path), "source": "oct2017"})
    assert (
        summary_lines(read(folder), "kfold")[0] == "12 images of 6 patients (oct2017, 8 pixels), split by kfold."
    )


def test_radii_are_those_that_models_were_trained_at(folder: Path) -> None:
    assert training_mark(read(folder), "Linf") == (0.01, "training ε")
    assert training_mark(read(folder), "L2") is None
    change(folder, "two", "adv", "adv", eps=0.0052)
    run = read(folder)
    assert "at ε = 0.0052 and 0.01." in summary_lines(run, "patient")[1]
    assert training_mark(run, "Linf") is None
    near = {(model, regime): run.nearest_eps(model, regime, "pgd") for model, regime in run.models()}
    assert near["one", "clean"] == near["one", "adv"] == near["ensemble", "adv"] == "0.01"
    assert near["two", "clean"] == near["two", "adv"] == "0.005"
    assert "0.500 [0.400, 0.600] (ε 0.005)" in tables.plain(tables.short_table(run))


def test_after_an_edit_no_radius_is_shown_that_no_model_was_trained_at(folder: Path) -> None:
    (folder / "params.yaml").write_text("seed: 1\nadv: {eps: 0.03}\n")
    run = read(folder, checked=True)
    assert not run.training_eps()
    assert "adversarially" not in " ".join(summary_lines(run, "patient"))
    assert not re.search(r"(?<![-\d])0\.03\b", render_markdown(page_content(run, SETTINGS)))
    assert {run.nearest_eps(model, "clean", "pgd") for model in ("one", "two")} == {"0.005"}, "the smallest"


def test_a_backbone_without_a_checkpoint_is_named(folder: Path) -> None:
    for regime in ("clean", "adv"):
        (folder / "data" / "checkpoints" / "two" / regime / "card.json").unlink()
    assert summary_lines(read(folder), "patient")[1].endswith("No checkpoint of two belongs to this run.")
