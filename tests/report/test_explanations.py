"""The section on explanations: drift beside its controls, pictures with captions, and what is missing."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medrobust.core.records import read_metrics
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.page.write import write_report
from medrobust.report.run import Run
from medrobust.report.tables.explanations import (
    drift_table,
    explanation_pictures,
    explanation_text,
    read_explanations,
)
from tests.report.pipeline import lock
from tests.report.runs import SETTINGS, folders, outputs, read, write_record

BACKBONES = ["one", "two"]


def record(**changes: Any) -> dict[str, Any]:
    names = ("iou", "iou_same_class", "iou_noise", "rank", "rank_noise", "inside_clean", "inside_attacked")
    measures: dict[str, Any] = {name: 0.1 * number for number, name in enumerate(names, 1)}
    measures |= {f"{name}_ci": [0.0, 0.9] for name in names}
    captions = {"fooled-1": "Fooled <first>.", "right-1": "Right.", "surface": "The loss.", "features": "Points."}
    return {
        "suite": "pgd", "eps": 0.01, "n": 16, "changed": 12, "patients": 9, "region": "foreground",
        "region_share": 0.5, "unrelated_iou": 0.111, "grid": [4, 4], "layer": "layer3", "gradcam": measures,
        "saliency": measures, "captions": captions, "missing": {}, "pictures": "0",
    } | changes  # fmt: skip


@pytest.fixture
def explained(folder: Path) -> Path:
    """A run whose models are all explained."""
    for number, name in enumerate(f"{b}-{regime}" for b in BACKBONES for regime in ("clean", "adv")):
        write_record(folder / "metrics" / "explain" / f"{name}.json", record())
        plots = folder / "plots" / "explain" / name
        plots.mkdir(parents=True)
        for index, picture in enumerate(record()["captions"]):
            Image.new("RGB", (4, 4), (10 * number, 10 * index, 0)).save(plots / f"{picture}.png")
    return folder


def explain(folder: Path, **options: Any) -> Run:
    run = read(folder, **options)
    read_explanations(run, folder / "metrics", BACKBONES)
    return run


def test_drift_is_shown_next_to_noise_with_intervals(explained: Path) -> None:
    table = drift_table(explain(explained), 0.95)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert len(rows) == 8
    first = rows[0]
    assert (first["model"], first["training"], first["map"]) == ("one", "clean", "Grad-CAM")
    assert (first["overlap"], first["overlap, noise"]) == ("0.100 [0.000, 0.900]", "0.300 [0.000, 0.900]")
    assert (first["n (prediction changed)"], first["region"]) == ("16 (12)", "0.500")
    assert "0.100 [0.000, 0.900]" in render_markdown(page_content(explain(explained), SETTINGS))


def test_a_measure_that_some_images_lack_has_its_number_of_images(explained: Path) -> None:
    kind = record()["gradcam"] | {"iou_n": 15, "rank_n": 16, "iou_noise": None, "iou_noise_n": 0}
    write_record(explained / "metrics" / "explain" / "one-adv.json", record(gradcam=kind))
    table = drift_table(explain(explained), 0.95)
    row = next(
        dict(zip(table.columns, row, strict=True)) for row in table.rows if row[:2] == ["one", "adversarial"]
    )
    assert row["overlap"] == "0.100 [0.000, 0.900], n 15"
    assert (row["overlap, noise"], row["rank correlation"]) == ("–", "0.400 [0.000, 0.900]")


def test_the_page_holds_every_picture_once_with_its_caption(explained: Path) -> None:
    run = explain(explained)
    pictures = explanation_pictures(run, explained / "plots")
    assert len(pictures) == 16
    html = render_html(page_content(run, SETTINGS), pictures)
    assert html.count("<img") == 16
    assert "Fooled &lt;first&gt;." in html
    assert "A map is no proof" in html
    assert "4×4 cells" in html
    assert html.index("Pictures of one") < html.index("Pictures of two")
    assert html.count('id="explanations"') == 1
    assert 'Pictures of two <span class="soft">(8)' in html
    assert "Pictures of" not in render_html(page_content(run, SETTINGS), {}), (
        "nothing to open where no picture is there"
    )


def test_what_is_missing_is_listed(explained: Path) -> None:
    (explained / "metrics" / "explain" / "two-adv.json").unlink()
    (explained / "plots" / "explain" / "one-clean" / "right-1.png").unlink()
    lacking = {**record(missing={"fooled": "the suite fooled no image"}), "gradcam": None}
    del lacking["gradcam"], lacking["captions"]["fooled-1"], lacking["grid"]
    write_record(explained / "metrics" / "explain" / "one-adv.json", lacking)
    run = explain(explained)
    write_report(run, SETTINGS, outputs(explained), folders(explained), pictures=True)
    html = (explained / "out" / "page" / "index.html").read_text()
    assert any(path.endswith("explain/two-adv.json") for path in run.missing)
    assert any(path.endswith("one-clean/right-1.png") for path in run.missing)
    assert "one, adversarial training: the suite fooled no image." in html
    rows = drift_table(run, 0.95).rows
    assert ["one", "adversarial", "Grad-CAM", "none"] in [row[:4] for row in rows]
    assert not [row for row in rows if row[:2] == ["two", "adversarial"]]


def test_a_run_without_explanations_has_no_section(folder: Path) -> None:
    html = render_html(page_content(read(folder), SETTINGS), {})
    assert 'id="explanations"' not in html


def test_pictures_of_another_run_are_not_shown(explained: Path) -> None:
    lock(explained)
    run = explain(explained, checked=True)
    assert run.explain == {}, "no stage writes them"
    assert len(run.foreign) == 4
    assert read_metrics(explained / "metrics" / "explain" / "one-clean.json")


def test_backbones_without_explanations_are_listed(explained: Path) -> None:
    run = read(explained)
    read_explanations(run, explained / "metrics", ["one"])
    assert explanation_text(run)[-1] == "Not explained (models.*.explain in params.yaml): two."
    assert not [line for line in explanation_text(explain(explained)) if line.startswith("No explanations")]
