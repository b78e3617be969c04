"""The comparison of models: one family of tests per matrix, the same images for all, planned tests apart."""

from pathlib import Path

import numpy as np
import pytest

from medrobust.core.metrics import balanced_accuracy, confusion
from medrobust.core.paired import holm
from medrobust.core.records import write_table
from medrobust.report.answers import right_clean
from medrobust.report.comparisons import gains_of_robust_training
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.tables.comparisons import contrasts, pairs_table, robust_training_table
from tests.report.runs import SETTINGS, predictions, read, write_attacked_method


def test_every_pair_is_compared_clean_and_under_each_suite(folder: Path) -> None:
    run = read(folder, checked=True)
    assert run.missing == []
    assert run.foreign == {}
    assert [(c.images, c.measure, c.n, c.patients) for c in run.comparisons] == [
        ("clean", "balanced accuracy", 24, 12), ("pgd ε 0.01", "robust accuracy", 24, 12)
    ]  # fmt: skip
    assert [len(c.pairs) for c in run.comparisons] == [10, 10]
    found = run.comparisons[0].pairs[("two", "adv"), ("one", "clean")]
    by_hand = [
        balanced_accuracy(confusion(table["label"].to_numpy(), table["pred"].to_numpy(), 3))
        for table in (right_clean(predictions(number)) for number in (3, 0))
    ]
    assert found.value == pytest.approx(by_hand[0] - by_hand[1])
    assert found.interval[0] <= found.value <= found.interval[1]
    for comparison in run.comparisons:
        pairs = comparison.pairs.values()
        assert [pair.p_holm for pair in pairs] == pytest.approx(holm([pair.p for pair in pairs]))


def test_under_attack_an_image_that_one_attack_fools_is_wrong(folder: Path) -> None:
    run = read(folder)
    table = run.answers.attacked["one", "clean", "pgd"]
    assert set(table["eps"]) == {0.01}
    assert not table["right"].any(), "every clean model is fooled at this radius"
    robust = run.answers.attacked["one", "adv", "pgd"]
    gain = run.comparisons[1].pairs[("one", "adv"), ("one", "clean")]
    assert gain.value == pytest.approx(robust["right"].mean())


def test_the_planned_comparisons_are_a_family_of_their_own(folder: Path) -> None:
    run = read(folder)
    gains = gains_of_robust_training(run)
    assert list(gains) == [(name, images) for images in ("clean", "pgd ε 0.01") for name in ("one", "two")]
    assert [pair.p_holm for pair in gains.values()] == pytest.approx(holm([pair.p for pair in gains.values()]))
    rows = robust_training_table(run, 0.95).rows
    assert [row[:2] for row in rows[:2]] == [["one", "clean"], ["one", "pgd ε 0.01"]]


def test_a_model_whose_answers_are_missing_is_not_compared_and_listed(folder: Path) -> None:
    path = folder / "data" / "predictions" / "two-adv.parquet"
    path.unlink()
    run = read(folder)
    assert run.missing == [str(path)]
    assert ("two", "adv") not in run.comparisons[0].models
    assert ("two", "adv") in run.comparisons[1].models


def test_answers_of_other_weights_are_left_out(folder: Path) -> None:
    table = predictions(3)
    table.attrs["made_on"] = {"weights": "0" * 64, "data": "d" * 64, "split": "5" * 16}
    path = folder / "data" / "predictions" / "two-adv.parquet"
    write_table(path, table)
    run = read(folder)
    assert run.foreign == {str(path): "it was made on weights other than this model's"}
    assert ("two", "adv") not in run.comparisons[0].models


def test_only_images_that_all_have_count(folder: Path) -> None:
    path = folder / "data" / "predictions" / "two-adv.parquet"
    table = predictions(3)
    table.attrs["made_on"] = read(folder).answers.predictions["two", "adv"].attrs["made_on"]
    write_table(path, table[2:])
    fewer = table[table["split"] == "test"][2:]
    fewer.attrs = table.attrs
    write_table(path, fewer)
    comparison = read(folder).comparisons[0]
    assert (comparison.n, comparison.patients) == (22, 11)


def test_attacked_methods_are_compared_too(folder: Path) -> None:
    write_attacked_method(folder)
    run = read(folder, attacked=("equal",))
    assert ("equal ensemble", "adv") in run.comparisons[1].models


def test_without_the_header_answers_have_no_names_and_are_left_out(folder: Path) -> None:
    (folder / "data" / "prepared" / "header.json").unlink()
    run = read(folder)
    assert (run.comparisons, run.scored, run.sample) == ([], {}, None)
    assert render_html(page_content(run, SETTINGS), {})


def test_one_model_has_nothing_to_compare(folder: Path) -> None:
    run = read(folder, backbones=())
    assert run.comparisons == []
    assert contrasts(run, 0.95) == []
    assert pairs_table(run, 0.95).rows == []


def test_the_matrix_shows_each_pair_once_with_its_interval_and_marks_what_is_clear(folder: Path) -> None:
    run = read(folder)
    matrix = contrasts(run, 0.95)[1]
    assert [len(row) for row in matrix.cells] == [1, 2, 3, 4]
    assert (matrix.rows[0], matrix.columns[0]) == ("one-adv", "one-clean")
    pair = run.comparisons[1].pairs[("one", "adv"), ("one", "clean")]
    cell = matrix.cells[0][0]
    assert cell.value == f"{pair.value:+.2f}"
    assert cell.clear == (pair.p_holm < 0.05)
    assert f"p = {pair.p:.2g}, corrected {pair.p_holm:.2g}" in cell.detail
    assert contrasts(run, 1 - pair.p_holm - 1e-9)[1].cells[0][0].clear
    assert not contrasts(run, 1 - pair.p_holm + 1e-9)[1].cells[0][0].clear
    html = render_html(page_content(run, SETTINGS), {})
    assert f'title="{cell.detail}">{cell.value}<small>' in html
    assert "What adversarial training changes" in render_markdown(page_content(run, SETTINGS))


def test_the_common_radius_is_the_nearest_that_all_models_have(folder: Path) -> None:
    run = read(folder)
    assert run.answers.radii == {"pgd": "0.01"}
    assert np.isclose(run.training_eps()["one"], 0.01)
