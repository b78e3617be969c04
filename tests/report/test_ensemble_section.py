"""The section on the ensemble: members, methods, transfer and calibration."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medrobust.core.records import read_metrics
from medrobust.report.figures.draw import draw_all
from medrobust.report.page.render import page_content, render_html
from medrobust.report.page.sections import sections
from medrobust.report.tables import accuracy as tables
from medrobust.report.tables.calibration import calibration_table, recall_table
from medrobust.report.tables.ensemble import ensemble_text, methods_table, weights_table
from medrobust.report.tables.transfer import transfer_grids, transfer_tables
from tests.report.pipeline import lock
from tests.report.runs import SETTINGS, read, write_record, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def change(folder: Path, name: str, **facts: Any) -> None:
    path = folder / "metrics" / f"{name}.json"
    write_record(path, {**read_metrics(path), **facts})


def test_the_text_names_method_and_fit_and_that_test_was_not_used(folder: Path) -> None:
    text = " ".join(ensemble_text(read(folder)))
    assert "Selected method: convex" in text
    assert "20 validation images of 7 patients and minimises a log-loss with a weight of 50% on attacked" in text
    assert "No test image was used" in text
    assert "is 0.250 [0.150, 0.350] on 8 images" in text
    assert (
        "each member gets an image of its own, as in the study that this project starts from, it is 0.500" in text
    )


def test_an_ensemble_of_one_is_called_one_model(folder: Path) -> None:
    change(folder, "ensemble", weights={"one-adv": 0.0, "two-adv": 1.0}, absent_from_val=["Mild"])
    text = " ".join(ensemble_text(read(folder)))
    assert (
        "Only two-adv has a non-zero weight, so this ensemble is that one model. The other members are not run."
        in text
    )
    assert "No validation image of Mild" in text
    change(folder, "ensemble", weights={"two-adv": 1.0})
    assert "The other members" not in " ".join(ensemble_text(read(folder)))


def test_members_have_their_weights_and_temperatures(folder: Path) -> None:
    assert weights_table(read(folder)).rows == [["one-adv", "0.250"], ["two-adv", "0.750"]]
    change(folder, "ensemble", method="stacking", weights={}, temperatures={"one-adv": 0.5, "two-adv": 2.0})
    rows = [["one-adv", "by regression", "0.500"], ["two-adv", "by regression", "2.000"]]
    assert weights_table(read(folder)).rows == rows


def test_methods_are_compared_and_the_selected_one_is_marked(folder: Path) -> None:
    rows = {row[0]: row for row in methods_table(read(folder), 0.95).rows}
    assert list(rows) == ["equal", "convex (selected)", "stacking"]
    assert rows["equal"][5] == "0.700 [0.600, 0.800]"
    assert rows["stacking"][-1] == "not fitted: too few validation patients have Severe"
    assert {len(row) for row in rows.values()} == {len(methods_table(read(folder), 0.95).columns)}
    change(folder, "ensemble", methods={"equal": {"test_accuracy": 0.5, "val_missing": "1 patient has no folds"}})
    assert "No validation figures of equal: 1 patient has no folds." in methods_table(read(folder), 0.95).note


def test_the_heat_map_has_sources_as_rows(folder: Path) -> None:
    (grid,) = transfer_grids(read(folder))
    assert grid.rows == ["no attack", *grid.columns]
    assert [grid.rates[k + 1][k] for k in range(5)] == [0.25] * 5
    assert grid.rates[0] == [0.75] * 5
    assert grid.details[1][1] == "one-adv on images made on one-clean: 0.625 [0.525, 0.725]"
    assert "made on ↓ evaluated on →" in render_html(page_content(read(folder), SETTINGS), {})


def test_calibration_is_shown_before_and_after_the_attack(folder: Path) -> None:
    table = calibration_table(read(folder), 0.95)
    rows = [row for row in table.rows if row[:2] == ["one", "clean"]]
    assert [row[2] for row in rows] == ["clean", "pgd ε 0.01"]
    assert [row[4] for row in rows] == ["1.250 [1.000, 2.000]", "1.750 [1.000, 2.000]"]
    every = tables.backbone_table(read(folder), "one", 0.95)
    last = [dict(zip(every.columns, row, strict=True)) for row in every.rows if "all steps" in row[1]]
    assert [(row["training"], row["n"], row["log-loss"]) for row in last] == [
        ("clean", "8", "1.750"),
        ("adversarial", "8", "1.750"),
    ]
    for row in (dict(zip(table.columns, rows[1], strict=True)), last[0]):
        assert row["ECE (calibrated: mean, upper)"] == "0.237 (0.060, 0.120)"
        assert row["confidence − accuracy"] == "0.250 [0.150, 0.350]"
    assert (last[0]["calibration slope"], last[0]["calibration intercept"]) == ("0.900", "–")


def test_recalls_are_shown_clean_and_attacked_at_the_training_radius(folder: Path) -> None:
    table = recall_table(read(folder), 0.95)
    first = [row for row in table.rows if row[:2] == ["one", "adversarial"]]
    assert [(row[2], row[4]) for row in first] == [("clean", "0.500"), ("pgd ε 0.01", "0.000 [0.000, 0.000]")]


def test_without_a_matrix_the_rest_remains(folder: Path) -> None:
    write_record(folder / "metrics" / "transfer.json", {"n": 0})
    run = read(folder)
    assert (transfer_grids(run), calibration_table(run, 0.95).rows) == ([], [])
    assert "ensemble" in {section.name for section in sections(run, SETTINGS)}
    (folder / "plots" / "transfer" / "matrix.csv").unlink()
    change(folder, "ensemble", methods={})
    run = read(folder)
    assert methods_table(run, 0.95).rows == []
    assert "ensemble" in {section.name for section in sections(run, SETTINGS)}


def test_a_matrix_of_another_run_is_left_out(folder: Path) -> None:
    lock(folder)
    path = folder / "plots" / "transfer" / "matrix.csv"
    path.write_text(path.read_text().replace("0.625", "0.999"))
    run = read(folder, checked=True)
    assert run.ensemble.matrices == {}
    assert any("matrix.csv" in name for name in run.foreign)


def test_the_matrix_ends_with_the_constant_answer(folder: Path) -> None:
    run = read(folder)
    run.answers.scores = None
    score = run.constant_answer()
    assert transfer_tables(run, 0.95)[0].rows[-1] == ["constant answer", *[f"{score:.3f}"] * 5], (
        "of all test images"
    )
    run.answers.scores = pd.DataFrame({"id": ["a", "b", "c", "a"], "label": [0, 0, 1, 0]})
    assert transfer_tables(run, 0.95)[0].rows[-1][1:] == ["0.667"] * 5, "of the three images of the matrix"


def test_the_matrix_is_a_figure_for_papers_too(folder: Path) -> None:
    drawn = draw_all(read(folder), folder, {})
    assert drawn["transfer_pgd"].is_file()
    assert "evaluated on" in drawn["transfer_pgd"].with_suffix(".svg").read_text()


def test_members_attacked_alone_have_a_row_per_radius(folder: Path) -> None:
    title = "Each member attacked alone"
    assert title not in [table.title for table in transfer_tables(read(folder), 0.95)]
    rows = [
        {"eps": eps, "accuracy": value, "accuracy_ci": [0.1, 0.9]} for eps, value in ((0.005, 0.75), (0.1, 0.25))
    ]
    change(folder, "transfer", per_member=rows)
    table = transfer_tables(read(folder), 0.95)[-1]
    assert table.title == title
    *found, constant = table.rows
    assert found == [["0.005", "0.750 [0.100, 0.900]"], ["0.1", "0.250 [0.100, 0.900]"]]
    assert constant[0] == "constant answer"
    assert "these numbers are no bounds" in " ".join(table.note.split())
