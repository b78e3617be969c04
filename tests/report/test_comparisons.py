"""The comparison of models: one family of tests per matrix, the same images for all, planned tests apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medrobust.core.metrics import balanced_accuracy, confusion
from medrobust.core.paired import holm
from medrobust.core.records import write_table
from medrobust.report.answers import right_clean
from medrobust.report.comparisons import compare_under_corruptions, gains_of_robust_training
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.tables.comparisons import (
    contrasts,
    corruption_gains_table,
    difference,
    pairs_table,
    robust_training_table,
)
from tests.report.runs import SETTINGS, decisions, predictions, read, write_attacked_method, write_record


def test_every_pair_is_compared_clean_and_under_each_suite(folder: Path) -> None:
    run = read(folder, checked=True)
    assert run.missing == []
    assert run.foreign == {}
    assert [(c.unit, c.images, c.measure, c.n, c.patients) for c in run.comparisons] == [
        ("image", "clean", "balanced accuracy", 24, 12), ("image", "pgd ε 0.01", "robust accuracy", 24, 12),
        ("patient", "clean", "balanced accuracy", 12, 12), ("patient", "pgd ε 0.01", "robust accuracy", 12, 12),
    ]  # fmt: skip
    assert [len(c.pairs) for c in run.comparisons] == [10, 10, 6, 6]
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


def test_decisions_on_patients_are_compared_clean_and_attacked_end_to_end(folder: Path) -> None:
    run = read(folder)
    clean, attacked = [found for found in run.comparisons if found.unit == "patient"]
    gain = clean.pairs[("two", "adv"), ("one", "clean")]
    by_hand = [
        balanced_accuracy(confusion(table["label"].to_numpy(), table["pred"].to_numpy(), 3))
        for table in (decisions(3), decisions(0))
    ]
    assert gain.value == pytest.approx(by_hand[0] - by_hand[1])
    table = run.answers.patients_attacked["one", "adv", "pgd"]
    assert {*table["id"]} == {*decisions(0)["patient"]}
    assert attacked.pairs[("one", "adv"), ("one", "clean")].value == pytest.approx(table["right"].mean())
    assert table["right"].any(), "at this radius only a third of the patients is fooled"


def test_patients_whose_record_is_missing_are_not_compared(folder: Path) -> None:
    (folder / "metrics" / "patients" / "two-adv.json").unlink()
    write_record(folder / "metrics" / "patients" / "two-clean.json", {"not_fitted": "no patient unit"})
    for regime in ("clean", "adv"):
        write_record(
            folder / "metrics" / "attack_patient" / f"one-{regime}-pgd.json",
            {"not_fitted": "acts on single images"},
        )
    run = read(folder)
    clean, attacked = [found for found in run.comparisons if found.unit == "patient"]
    assert clean.models == [("one", "clean"), ("one", "adv")]
    assert attacked.models == [("two", "clean"), ("two", "adv")]
    assert run.missing == [str(folder / "metrics" / "patients" / "two-adv.json")]


def test_the_planned_comparisons_of_each_unit_are_a_family_of_their_own(folder: Path) -> None:
    run = read(folder)
    for unit in ("image", "patient"):
        gains = gains_of_robust_training(run, unit)
        assert list(gains) == [(name, images) for name in ("one", "two") for images in ("clean", "pgd ε 0.01")]
        assert [pair.p_holm for pair in gains.values()] == pytest.approx(holm([pair.p for pair in gains.values()]))
    table = robust_training_table(run, 0.95)
    assert [row[:3] for row in table.rows[:2]] == [["one", "patient", "clean"], ["one", "patient", "pgd ε 0.01"]]
    assert [row[1] for row in table.rows] == ["patient"] * 4 + ["image"] * 4
    assert "corrected for 4 tests by patient and 4 tests by image, each unit a family" in table.note


def corrupted(seed: int, unit: str) -> pd.DataFrame:
    """Answers of a model to two corruptions in two severities."""
    parts = []
    for number, (name, severity) in enumerate((name, s) for name in ("motion", "gamma") for s in (1, 5)):
        table = right_clean(predictions(seed + number)) if unit == "image" else decisions(seed + number)
        table = table.assign(id=table["patient"]) if unit == "patient" else table
        parts.append(table.assign(corruption=name, severity=severity, unit=unit))
    return pd.concat(parts, ignore_index=True)


def test_under_corruptions_robust_and_clean_training_are_compared_over_all_severities(folder: Path) -> None:
    run = read(folder)
    tables = {"image": run.answers.corrupted, "patient": run.answers.patients_corrupted}
    for unit, found in tables.items():
        found["one", "clean"], found["one", "adv"] = corrupted(0, unit), corrupted(20, unit)
        found["two", "clean"] = corrupted(40, unit)  # its other model is missing
    compare_under_corruptions(run, resamples=50, confidence=0.95)
    for unit, found in tables.items():
        gains = run.corruptions.gains[unit]
        assert list(gains) == [("one", "all corruptions"), ("one", "motion"), ("one", "gamma")]
        one, other = (
            [
                balanced_accuracy(confusion(part["label"].to_numpy(), part["pred"].to_numpy(), 3))
                for _, part in table[table["corruption"] == "gamma"].groupby("severity")
            ]
            for table in (found["one", "adv"], found["one", "clean"])
        )
        assert gains["one", "gamma"].value == pytest.approx(np.mean(one) - np.mean(other))
        whole = [gains["one", name].value for name in ("motion", "gamma")]
        assert gains["one", "all corruptions"].value == pytest.approx(np.mean(whole))
        assert [pair.p_holm for pair in gains.values()] == pytest.approx(holm([pair.p for pair in gains.values()]))
    table = corruption_gains_table(run, 0.95)
    assert [row[:2] for row in table.rows] == [["one", name] for name in ("all corruptions", "motion", "gamma")]
    assert table.rows[0][2] == difference(run.corruptions.gains["patient"]["one", "all corruptions"])
    assert "3 tests by patient and 3 tests by image" in table.note


def test_without_patients_a_corruption_is_compared_by_image_alone(folder: Path) -> None:
    run = read(folder)
    run.answers.corrupted["one", "clean"] = corrupted(0, "image")
    run.answers.corrupted["one", "adv"] = corrupted(20, "image")
    compare_under_corruptions(run, resamples=50, confidence=0.95)
    table = corruption_gains_table(run, 0.95)
    assert table.rows[0][2:5] == ["–"] * 3
    assert table.rows[0][5] != "–"


def test_clustering_makes_the_test_of_corruptions_one_of_patients(folder: Path) -> None:
    """The same answers of one patient in every severity tell as much as in one severity."""
    run = read(folder)
    for regime, seed in (("clean", 0), ("adv", 20)):
        once = right_clean(predictions(seed)).assign(corruption="motion", severity=1)
        run.answers.corrupted["one", regime] = once
        run.answers.patients_corrupted["one", regime] = pd.concat([once.assign(severity=s) for s in range(1, 6)])
    compare_under_corruptions(run, resamples=50, confidence=0.95)
    one, five = (run.corruptions.gains[unit]["one", "motion"] for unit in ("image", "patient"))
    assert one.value == pytest.approx(five.value)
    assert one.p == five.p
    assert one.interval == pytest.approx(five.interval)


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
    found = contrasts(run, 0.95)
    assert [(each.title.rpartition(", ")[2], each.folded) for each in found] == [
        ("by patient", False), ("by patient", False), ("by image", True), ("by image", True)
    ]  # fmt: skip
    matrix = found[3]
    assert [len(row) for row in matrix.cells] == [1, 2, 3, 4]
    assert (matrix.rows[0], matrix.columns[0]) == ("one-adv", "one-clean")
    pair = run.comparisons[1].pairs[("one", "adv"), ("one", "clean")]
    cell = matrix.cells[0][0]
    assert cell.value == f"{pair.value:+.2f}"
    assert cell.clear == (pair.p_holm < 0.05)
    assert f"p = {pair.p:.2g}, corrected {pair.p_holm:.2g}" in cell.detail
    assert contrasts(run, 1 - pair.p_holm - 1e-9)[3].cells[0][0].clear
    assert not contrasts(run, 1 - pair.p_holm + 1e-9)[3].cells[0][0].clear
    html = render_html(page_content(run, SETTINGS), {})
    assert f'title="{cell.detail}">{cell.value}<small>' in html
    assert "<details><summary>Difference in robust accuracy, pgd ε 0.01, by image</summary>" in html
    assert "What adversarial training changes" in render_markdown(page_content(run, SETTINGS))


def test_the_common_radius_is_the_nearest_that_all_models_have(folder: Path) -> None:
    run = read(folder)
    assert run.answers.radii == {"pgd": "0.01"}
    assert np.isclose(run.training_eps()["one"], 0.01)
