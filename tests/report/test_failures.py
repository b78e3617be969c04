"""The worst errors are chosen by rule, and name no patient."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medrobust.report.answers import right_clean
from medrobust.report.page.render import page_content, render_html
from medrobust.report.run import Run
from medrobust.report.tables.failures import SHOWN, failure_tables, patient_numbers
from medrobust.report.tables.table import NONE
from tests.report.runs import CLASSES, SETTINGS, predictions, read


def test_patients_are_numbered_in_the_order_of_the_test_images(folder: Path) -> None:
    run = read(folder)
    numbers = patient_numbers(run)
    test = right_clean(predictions(0))
    assert numbers.index.tolist() == test["id"].tolist()
    assert numbers["number"].tolist() == np.repeat(np.arange(1, 13), 2).tolist()
    assert numbers["place"].tolist() == ["1 of 2", "2 of 2"] * 12


def test_the_patients_with_the_largest_share_of_wrong_answers_come_first(folder: Path) -> None:
    table = failure_tables(read(folder))[0]
    test = [right_clean(predictions(number)) for number in range(5)]
    wrong = pd.concat(test).groupby("patient")["right"].mean()
    shares = sorted((1 - wrong).tolist(), reverse=True)
    assert [row[3] for row in table.rows] == [f"{share:.0%}" for share in shares[:8] if share]
    patients = list(dict.fromkeys(test[0]["patient"]))
    for row in table.rows:
        name = patients[int(row[0]) - 1]
        assert row[3] == f"{1 - wrong[name]:.0%}"
        assert row[1] == CLASSES[int(name[1])]


def test_the_worst_answers_are_the_most_distant_and_then_the_most_confident(folder: Path) -> None:
    table = failure_tables(read(folder))[1]
    test = right_clean(predictions(0))
    wrong = test[~test["right"]].assign(
        away=(test["pred"] - test["label"]).abs(),
        sure=np.exp(test[[f"logprob_{k}" for k in range(3)]].max(axis=1)),
    )
    first = wrong.sort_values(["away", "sure"], ascending=False).iloc[0]
    row = next(row for row in table.rows if row[:2] == ["one", "clean"])
    expected = [CLASSES[first["label"]], CLASSES[first["pred"]], str(first["away"]), f"{first['sure']:.3f}"]
    assert row[4:] == expected
    assert len([row for row in table.rows if row[:2] == ["one", "clean"]]) == min(2, len(wrong))


def test_classes_without_order_have_no_distance(folder: Path) -> None:
    run = read(folder)
    run.header["ordered"] = False
    assert {row[6] for row in failure_tables(run)[1].rows} == {"1"}


def test_each_attack_has_the_image_that_falls_first(folder: Path) -> None:
    run = read(folder)
    table = failure_tables(run)[2]
    row = next(row for row in table.rows if row[:2] == ["one", "clean"])
    worst = run.answers.attacked["one", "clean", "pgd"]
    fooled = worst[worst["fooled_by"] == "pgd(steps=3)"]
    assert row[2:5] == ["pgd", "pgd(steps=3)", f"{len(fooled)} of 24"]
    assert row[5] == f"{fooled['fooled_at'].min():g}" == "0.005"


def test_rows_link_to_the_images_that_the_page_shows(folder: Path) -> None:
    run = read(folder)
    plain = failure_tables(run)
    assert not [table for table in plain if SHOWN in table.columns]
    second = predictions(0)["id"].tolist()
    run.cases.update({name: 30 + k for k, name in enumerate(second) if k % 2})
    for before, table in zip(plain, failure_tables(run), strict=True):
        assert table.columns == [*before.columns, SHOWN]
        assert [row[:-1] for row in table.rows] == before.rows
        assert table.cases
    for table in failure_tables(run)[1:]:
        place = table.columns.index("image")
        shown = {row[-1] != NONE for row in table.rows if row[place] == "2 of 2"}
        assert shown == {True}
        assert {row[-1] for row in table.rows if row[place] == "1 of 2"} == {NONE}
    patients = failure_tables(run)[0]
    assert all(re.fullmatch(r"image \d+", row[-1]) for row in patients.rows)
    page = render_html(page_content(run, SETTINGS), {}, cases=18)
    part = page[page.index('<section id="failures"') : page.index('<section id="checks"')]
    links = re.findall(r'<a href="cases\.html#image-(\d+)">image \1</a>', part)
    assert set(map(int, links)) <= set(run.cases.values())
    assert len(links) == sum(row[-1] != NONE for table in failure_tables(run) for row in table.rows)


def test_no_id_and_no_file_name_is_shown(folder: Path) -> None:
    run = read(folder)
    cells = [cell for table in failure_tables(run) for row in table.rows for cell in row]
    names = {*predictions(0)["patient"], *predictions(0)["id"]}
    assert not names & set(cells)
    assert "p0c" not in render_html(page_content(run, SETTINGS), {})


def test_without_answers_there_is_no_failure() -> None:
    assert failure_tables(Run(["one"], ["pgd"])) == []


@pytest.mark.parametrize("right", [True, False])
def test_a_model_without_errors_is_not_listed(folder: Path, right: bool) -> None:
    run = read(folder)
    for model, table in run.answers.predictions.items():
        run.answers.predictions[model] = table.assign(pred=table["label"] if right else table["pred"])
    tables = failure_tables(run)
    assert (tables[0].rows == [], tables[1].rows == []) == (right, right)
