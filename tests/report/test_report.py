"""The page says what is there, names what is missing, and needs no network."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medrobust.records import write_json, write_table
from medrobust.report import tables
from medrobust.report.collect import REGIMES, Run, collect
from medrobust.report.figures import confusion, draw_all
from medrobust.report.page import Settings, inline_svg, render_html, render_markdown, verdicts

CLASSES = ["Non <b>", "Mild", "Severe"]
SETTINGS = Settings("a title", 1, "patient", 0.01, 0.95)


def clean_record() -> dict[str, Any]:
    ci = {f"{name}_ci": [0.5, 0.9] for name in ("accuracy", "balanced_accuracy")}
    recalls = {f"recall_{name}": 0.5 for name in CLASSES[:2]} | {"recall_Severe": None}
    return {
        "n": 30, "patients": 10, "accuracy": 0.7123, "balanced_accuracy": 0.6, "macro_f1": 0.5, "auroc": None,
        "quadratic_kappa": 0.4, "ece": 0.1, "seconds": 3.0, **ci, **recalls,
    }  # fmt: skip


def checks_record(verdict: str = "no problem found") -> dict[str, Any]:
    word = {"invalid": "fail", "suspect": "warn"}.get(verdict, "pass")
    suites = {"pgd": {"verdict": verdict, "eps": 0.01, "checks": {"restarts": f"{word}: fools 3 of 12 images"}}}
    means = {"restarts": "one start decides"} if word != "pass" else {}
    return {"verdict": verdict, "model": {"collapse": "pass: 30%"}, "suites": suites, "means": means}


def attack_record() -> dict[str, Any]:
    return {
        "clean_accuracy": 0.7, "robust_accuracy": {"0.005": 0.5, "0.01": 0.25}, "seconds": 1.0,
        "robust_accuracy_ci": {"0.005": [0.4, 0.6], "0.01": [0.2, 0.3]},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a run with two backbones and one suite."""
    write_json(tmp_path / "header.json", {
        "source": "phantom", "classes": CLASSES, "images": 60, "patients": 20, "image_size": 32,
        "licence": "MIT", "citation": "A & B",
    })  # fmt: skip
    m, p = tmp_path / "metrics", tmp_path / "plots"
    part = {"images": 20, "patients": 7, **dict.fromkeys(CLASSES, 6)}
    write_json(m / "audit.json", {"verdict": "leaking", "reasons": ["2 of 7 test patients also stand in train"]})
    write_json(m / "split.json", {"train": part, "val": part, "test": part})
    write_json(m / "ensemble.json", {"weights": {"one": 0.25, "two": 0.75}, **clean_record()})
    for backbone in ("one", "two"):
        write_json(m / "tune" / f"{backbone}.json", {"best_val_balanced_accuracy": 0.5, "trials": 3, "pruned": 1})
        best = {"lr": 0.001, "optimiser": "Adam", "batch_size": 32, "scheduler": "StepLR"}
        write_json(tmp_path / "tune" / backbone / "best.json", best)
        for regime in REGIMES:
            name = f"{backbone}-{regime}"
            write_json(m / "train" / f"{name}.json", clean_record())
            history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "val_balanced_accuracy": [0.4, 0.6]})
            write_table(p / "train" / name / "history.csv", history)
            # Each model answers a little differently, so that no two matrices are the same picture.
            more = ["Mild"] * (2 * (backbone == "two") + (regime == "adv"))
            actual, predicted = [CLASSES[0], "Mild", "Mild", *more], [CLASSES[0], "Mild", CLASSES[0], *more]
            answers = pd.DataFrame({"actual": actual, "predicted": predicted})
            write_table(p / "train" / name / "confusion.csv", answers)
    for name in ("one-clean", "one-adv", "two-clean", "two-adv", "ensemble-adv"):
        write_json(m / "attack" / f"{name}-pgd.json", attack_record())
        write_json(m / "checks" / f"{name}.json", checks_record())
        curve = pd.DataFrame(
            {"eps": [0.005, 0.01], "robust_accuracy": [0.5, 0.25], "low": [0.4, 0.2], "high": [0.6, 0.3]}
        )
        write_table(p / "attack" / f"{name}-pgd.csv", curve)
    return tmp_path


def read(folder: Path) -> Run:
    return collect(
        folder / "header.json", folder / "metrics", folder / "plots", folder / "tune", ["one", "two"], ["pgd"]
    )


def page(folder: Path) -> str:
    run = read(folder)
    out = folder / "figures"
    out.mkdir(exist_ok=True)
    return render_html(run, draw_all(run, out, 0.01), SETTINGS)


def test_a_whole_run_lacks_nothing_and_opens_with_its_verdicts(folder: Path) -> None:
    html = page(folder)
    assert read(folder).missing == []
    assert html.index("leaking") < html.index("Data and split") < html.index("Clean results")
    assert "2 of 7 test patients also stand in train" in html
    assert "0.712 [0.50, 0.90]" in html
    assert "0.250 [0.20, 0.30]" in html


def test_the_page_needs_no_network_and_its_ids_are_unique(folder: Path) -> None:
    html = page(folder)
    assert not re.search(r"<(script|link|img|iframe)\b", html)
    assert not re.search(r"(src|@import|url)\s*[=(]\s*[\"']?https?:", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert {name for name in ids if ids.count(name) > 1} == set()


def test_text_of_the_data_is_escaped(folder: Path) -> None:
    assert "Non <b>" not in page(folder)
    assert "Non &lt;b&gt;" in page(folder)


def test_what_is_missing_is_named_and_never_filled_in(folder: Path) -> None:
    (folder / "metrics" / "attack" / "two-adv-pgd.json").unlink()
    (folder / "metrics" / "train" / "one-clean.json").unlink()
    run = read(folder)
    assert len(run.missing) == 2
    html = page(folder)
    assert "two-adv-pgd.json" in html
    rows = {tuple(row[:2]): row for row in tables.attack_table(run, "pgd", 0.95).rows}
    assert rows["two", "adversarial"][2] == "missing"
    clean = {tuple(row[:2]): row for row in tables.clean_table(run, 0.95).rows}
    assert clean["one", "clean"][2] == tables.NONE


def test_an_empty_run_still_gives_a_page(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "Missing results" in html
    assert "missing" in html


def test_the_worst_verdict_is_the_runs(folder: Path) -> None:
    assert read(folder).verdict() == "no problem found"
    write_json(folder / "metrics" / "checks" / "one-adv.json", checks_record("suspect"))
    assert read(folder).verdict() == "suspect"
    (folder / "metrics" / "checks" / "one-clean.json").unlink()
    assert read(folder).verdict() == "unchecked"
    write_json(folder / "metrics" / "checks" / "two-adv.json", checks_record("invalid"))
    assert read(folder).verdict() == "invalid"
    assert [card["tone"] for card in verdicts(read(folder))] == ["bad", "bad", "bad"]


def test_what_did_not_pass_is_printed_with_what_it_means(folder: Path) -> None:
    write_json(folder / "metrics" / "checks" / "one-adv.json", checks_record("invalid"))
    run = read(folder)
    assert tables.checks_table(run).rows == [
        ["one", "adversarial", "pgd", "restarts", "fail", "fools 3 of 12 images", "one start decides"]
    ]
    assert {tuple(row[:2]): row[2] for row in tables.verdicts_table(run).rows}["one", "adversarial"] == "invalid"
    attacked = {tuple(row[:2]): row[-1] for row in tables.attack_table(run, "pgd", 0.95).rows}
    assert attacked["one", "adversarial"] == "invalid"
    assert attacked["two", "adversarial"] == "no problem found"
    for text in (page(folder), render_markdown(run, SETTINGS)):
        assert "one start decides" in text
        assert "did not pass everywhere: restarts" in text


def test_markdown_tables_have_as_many_cells_as_columns(folder: Path) -> None:
    text = render_markdown(read(folder), SETTINGS)
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.strip().splitlines()}) == 1
    assert "**Audit of the split: leaking**" in text


def test_confusion_matrices_carry_the_right_names_and_only_present_classes(folder: Path) -> None:
    figure = confusion(read(folder))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Non <b>", "Mild"]
    assert [text.get_text() for text in axes.texts] == ["1", "0", "1", "1"]


def test_the_same_data_give_the_same_figures(folder: Path) -> None:
    run = read(folder)
    files = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        files.append({key: path.read_bytes() for key, path in draw_all(run, folder / name, 0.01).items()})
    assert files[0] == files[1]


def test_the_short_table_takes_the_radius_nearest_to_training(folder: Path) -> None:
    text = tables.plain(tables.short_table(read(folder), 0.0101))
    assert "0.250 (ε 0.01)" in text
    assert "0.005" not in text


def test_ids_inside_figures_are_renamed_together() -> None:
    svg = '<?xml?><svg><g id="a"/><use xlink:href="#a"/><g clip-path="url(#a)"/></svg>'
    assert inline_svg(svg, "f") == '<svg><g id="f-a"/><use xlink:href="#f-a"/><g clip-path="url(#f-a)"/></svg>'
