"""The section on corruptions: means beside the attack, tables by severity, one figure, and what is missing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medrobust.core.lineage import MADE_ON
from medrobust.core.params.corruptions import CorruptionsParams
from medrobust.core.params.report import ReportParams
from medrobust.core.records import write_table
from medrobust.report.charts.corruptions import corruption_charts
from medrobust.report.figures.draw import draw_all
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.run import Run
from medrobust.report.tables.corruptions import (
    attack_points,
    corruption_short_table,
    corruption_tables,
    corruptions_text,
    read_corruption_records,
    read_corruptions,
)
from tests.params import default_block
from tests.report.runs import SETTINGS, made_on, read, write_record
from tests.report.test_cards import backbone, card_of, published


def rates(value: float) -> dict[str, Any]:
    return {"balanced_accuracy": value, "balanced_accuracy_ci": [value / 2, value], "accuracy": value}


def record() -> dict[str, Any]:
    part = {
        key: {
            **rates(0.6 - 0.1 * key),
            "relative_drop": 0.1 * key,
            "relative_drop_ci": [0.0, 0.5],
            "l2": 2.0 * key,
        }
        for key in (1, 5)
    }
    found = {"severities": {str(key): value for key, value in part.items()}, "worst": {**rates(0.05), "l2": 7.0}}
    return {
        "n": 30, "patients": 10, "draws": 3, **rates(0.65), "corruptions": {"bias_field": found, "motion": found},
        "worst": {**rates(0.02), "l2": 4.0}, "mean_balanced_accuracy": 0.3, "mean_relative_drop": 0.25,
    }  # fmt: skip


def predictions(wrong: int) -> pd.DataFrame:
    """Nine patients with one image each, under one severity of one corruption; the first ones are wrong."""
    rows = [
        {"id": f"i{k}", "patient": f"p{k}", "label": k % 3, "corruption": name, "severity": severity, "draw": 0,
         "pred": (k % 3 + (k < wrong) * severity) % 3, "distance": float(severity)}
        for name, severity in (("none", 0), ("motion", 1))
        for k in range(9)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return pd.concat([table.assign(unit=unit) for unit in ("image", "patient")], ignore_index=True)


@pytest.fixture
def corrupted(folder: Path) -> Path:
    """A run in which both models of the first backbone were evaluated; the second one makes half of the errors."""
    for number, regime in enumerate(("clean", "adv")):
        metrics = folder / "metrics" / "corrupt" / f"one-{regime}.json"
        write_record(metrics, record())
        table = predictions(6 - 3 * number)
        table.attrs[MADE_ON] = made_on(metrics)
        write_table(folder / "data" / "corrupt" / f"one-{regime}.parquet", table)
    return folder


def corrupt(folder: Path, **changes: Any) -> Run:
    run = read(folder)
    params = default_block(
        CorruptionsParams, "corruptions", **{"baseline": "one-clean", "suite": "pgd", **changes}
    )
    report = default_block(ReportParams, "report", bootstrap=50)
    read_corruptions(run, folder / "metrics", folder / "data" / "corrupt", ["one"], params, report)
    return run


def test_means_and_the_worst_case_are_beside_the_attack(corrupted: Path) -> None:
    table = corruption_short_table(corrupt(corrupted), 0.95)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["model"] for row in rows] == ["one", "one", "constant answer"]
    assert table.rows[-1][1:] == ["–"] * 4 + ["0.333", "0.333", "0.000", "–", "0.333", "0.333"]
    assert rows[0]["clean"] == "0.650 [0.325, 0.650]"
    assert (rows[0]["mean over corruptions"], rows[0]["mean relative drop"]) == ("0.300", "0.250")
    assert rows[0]["worst corruption"].startswith("0.020 [")
    assert rows[0]["pgd (L∞)"] == "0.200"
    assert rows[0]["mean corruption error"] == "1.000 [1.000, 1.000]"
    assert rows[1]["mean corruption error"].startswith("0.500 [")
    assert "one-clean" in table.note
    assert "3 draws" in table.note


def test_there_is_a_row_per_corruption_and_a_column_per_severity(corrupted: Path) -> None:
    accuracy, drop, *_ = corruption_tables(corrupt(corrupted), 0.95)
    assert accuracy.columns == ["corruption", "severity 1", "severity 5", "worst"]
    assert accuracy.rows[0] == [
        "bias field",
        "0.500 [0.250, 0.500]",
        "0.100 [0.050, 0.100]",
        "0.050 [0.025, 0.050]",
    ]
    assert "Without corruption: 0.650" in accuracy.note
    assert drop.rows[1] == ["motion", "0.100 [0.000, 0.500]", "0.500 [0.000, 0.500]"]
    assert drop.folded
    assert accuracy.rows[-1] == ["constant answer", "0.333", "0.333", "0.333"]


def test_patients_have_rows_and_tables_of_their_own(corrupted: Path) -> None:
    path = corrupted / "metrics" / "corrupt" / "one-adv.json"
    write_record(path, {**record(), "patient": {**record(), **rates(0.75), "n": 10}})
    run = corrupt(corrupted)
    run.patients.attacks["one", "adv", "pgd"] = {
        "robust_accuracy": {"0.01": 0.5}, "robust_balanced_accuracy": {"0.01": 0.45},
        "robust_balanced_accuracy_ci": {"0.01": [0.4, 0.5]},
    }  # fmt: skip
    table = corruption_short_table(run, 0.95)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["training"], row["unit"]) for row in rows[:-1]] == [
        ("clean", "image"), ("adversarial", "image"), ("adversarial", "patient")
    ]  # fmt: skip
    assert (rows[2]["n"], rows[2]["clean"]) == ("10", "0.750 [0.375, 0.750]")
    assert rows[2]["pgd (L∞)"] == "0.450 [0.400, 0.500]"
    titles = [table.title for table in corruption_tables(run, 0.95)]
    assert len(titles) == 6
    assert titles[4] == "Balanced accuracy under corruptions: one, adversarial training, by patient"


def test_the_figure_has_corruptions_and_the_attack_on_one_axis(corrupted: Path) -> None:
    run = corrupt(corrupted)
    chart, other = corruption_charts(run)
    assert chart.name == "corruptions-one-clean" != other.name
    assert chart.floor
    assert chart.floor == (1 / 3, "constant answer")
    *lines, inside, worst, attack = chart.series
    assert [line["name"] for line in lines] == ["bias field", "motion"]
    assert inside["points"] == [[7.0, 0.05], [7.0, 0.05]]
    assert worst["points"] == [[0.0, 0.65], [4.0, 0.02]]
    assert [line["loose"] for line in chart.series] == [False, False, True, False, False]
    assert lines[0]["points"] == [[0.0, 0.65], [2.0, pytest.approx(0.5)], [10.0, pytest.approx(0.1)]]
    assert [line["dashed"] for line in chart.series] == [False, False, False, True, True]
    values = run.header["channels"] * run.header["image_size"] ** 2
    assert attack["points"][1:] == [[round(eps * values**0.5, 6), y] for eps, y in ((0.005, 0.4), (0.01, 0.2))]


def test_a_model_that_is_right_on_no_clean_image_has_no_distance_of_its_worst_case(corrupted: Path) -> None:
    run = corrupt(corrupted)
    run.corruptions.records["one", "clean"]["worst"]["l2"] = None
    assert not any("by search" in line["name"] for line in corruption_charts(run)[0].series)


def test_the_answers_are_read_by_unit(corrupted: Path) -> None:
    answers = corrupt(corrupted).answers
    for unit, tables in (("image", answers.corrupted), ("patient", answers.patients_corrupted)):
        assert {*tables["one", "adv"]["unit"]} == {unit}
        assert {*tables["one", "adv"]["severity"]} == {1}
        assert len(tables["one", "adv"]) == 9


def test_the_figure_is_drawn_for_each_model(corrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    out.mkdir()
    drawn = draw_all(corrupt(corrupted), out, {"pgd": "Linf"})
    assert {"corruptions_one_clean", "corruptions_one_adv"} <= set(drawn)
    text = (out / "corruptions_one_clean.svg").read_text()
    assert "bias field" in text
    assert "mathdefault" not in text


def test_without_the_attack_or_the_header_the_figure_has_corruptions_alone(corrupted: Path) -> None:
    names = [line["name"] for line in corruption_charts(corrupt(corrupted, suite=None))[0].series]
    assert names == ["bias field", "motion", "worst inside a corruption, by search", "worst of all, by search"]
    run = corrupt(corrupted)
    run.header.clear()
    assert attack_points(run, ("one", "clean")) == []


def test_the_text_says_why_there_is_no_checklist_and_what_was_not_evaluated(corrupted: Path) -> None:
    text = corruptions_text(corrupt(corrupted))
    assert "checklist does not apply" in text[0]
    assert text[1] == "Not evaluated (models.*.corrupt in params.yaml): two."
    assert corruptions_text(read(corrupted)) == []


def test_page_and_markdown_have_the_section(corrupted: Path) -> None:
    run = corrupt(corrupted)
    assert 'id="corruptions"' in render_html(page_content(run, SETTINGS), {})
    assert "### Corruptions in short" in render_markdown(page_content(run, SETTINGS))
    assert "Corruptions in short" not in render_markdown(page_content(read(corrupted), SETTINGS))


def test_the_model_card_has_the_corruptions_of_its_model(corrupted: Path) -> None:
    run = backbone(corrupted, checked=False)
    assert "(rotation, blur, another scanner), were not tried" in card_of(published(run))
    read_corruption_records(run, corrupted / "metrics", ["one"])
    text = card_of(published(run))
    assert text.count("Balanced accuracy under corruptions: one, adversarial training") == 1
    assert "under corruptions: one, clean" not in text
    assert "than the corruptions above, were not tried" in text


def test_predictions_of_other_weights_give_no_mean_corruption_error(corrupted: Path) -> None:
    path = corrupted / "data" / "corrupt" / "one-clean.parquet"
    table = predictions(6)
    table.attrs[MADE_ON] = {**made_on(corrupted / "metrics" / "corrupt" / "one-clean.json"), "weights": "other"}
    write_table(path, table)
    run = corrupt(corrupted)
    assert "weights other than" in run.foreign[str(path)]
    assert "mean_corruption_error" not in run.corruptions.records["one", "adv"]
    (corrupted / "metrics" / "corrupt" / "one-clean.json").unlink()
    assert any("one-clean.json" in path for path in corrupt(corrupted).missing)
