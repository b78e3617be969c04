"""Tables of repeated runs are shown for the run that they belong to, and for no other."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medrobust.core.errors import UserError
from medrobust.core.records import write_table
from medrobust.report.page.render import page_content, render_html
from medrobust.report.repeated import headline_results, read_repeated
from medrobust.report.repeated_table import write_repeated
from medrobust.report.run import Run
from medrobust.report.tables.repeated import repeated_tables, repeated_text
from tests.report.runs import SETTINGS, read, write_record
from tests.stages import run_stage

ROOT = Path(__file__).resolve().parents[2]
KEY = ("patient", "one-adv", "clean balanced_accuracy")


def rows_of(run: Run, *columns: str) -> list[dict[str, Any]]:
    """A row per result of a run, with its numbers in these columns and others over the runs."""
    found = []
    for (unit, model, measure), value in headline_results(run).items():
        row: dict[str, Any] = {
            "unit": unit,
            "model": model,
            "measure": measure,
            "runs": 2,
            "mean": 0.5,
            "sd": 0.04,
        }
        row |= {name: round(value, 3) for name in columns}
        found.append({**row, "worst": 0.125, "seed-9": 0.4, "fold-0": 0.4})
    return found


def shown(folder: Path, over: str, rows: list[dict[str, Any]], seed: int = 1) -> Run:
    """The run with a table, which went through the stage's file."""
    write_table(folder / "table.csv", pd.DataFrame(rows))
    write_repeated(folder / "table.csv", over, folder / "metrics" / "repeated" / f"{over}.json")
    run = read(folder)
    read_repeated(run, folder / "metrics", [over], seed)
    assert run.missing == []
    assert run.foreign == {}
    return run


def test_the_spread_over_seeds_stands_beside_the_interval_over_patients(folder: Path) -> None:
    rows = rows_of(read(folder), "seed-1")
    run = shown(folder, "seeds", rows)
    (table,) = repeated_tables(run, 0.95)
    assert table.columns == ["model", "training", "unit", "measure", "this run", "runs", "mean", "sd", "worst"]
    assert [row[:5] for row in table.rows[:3]] == [
        ["one", "clean", "patient", "clean: balanced accuracy", "0.750 [0.600, 0.900]"],
        ["one", "clean", "patient", "clean: AUROC", "0.850 [0.700, 0.950]"],
        ["one", "clean", "patient", "pgd ε 0.01: balanced accuracy", "0.200"],
    ]
    assert table.rows[0][5:] == ["2", "0.500", "0.040", "0.125"]
    assert {row[2] for row in table.rows if row[0] != "ensemble"} == {"patient"}
    assert [row[2:4] for row in table.rows if row[0] == "ensemble"] == [
        ["image", "clean: balanced accuracy"], ["image", "pgd ε 0.01: balanced accuracy"]
    ]  # fmt: skip
    assert repeated_text(run) == [
        "The variation over folds was not measured. Run make folds (docs/experiments.md), and name its table in "
        "report.repeated of params.yaml."
    ]
    html = render_html(page_content(run, SETTINGS), {})
    assert "Variation over training seeds" in html
    assert "Run make folds (docs/experiments.md)" in html


def test_where_no_model_has_patients_the_table_is_by_image(folder: Path) -> None:
    for path in (folder / "metrics" / "patients").glob("*.json"):
        write_record(path, {"not_fitted": "no patient has several images"})
    for path in (folder / "metrics" / "attack_patient").glob("*.json"):
        write_record(path, {"not_fitted": "there is no patient unit"})
    run = shown(folder, "seeds", rows_of(read(folder), "seed-1"))
    assert {row[2] for row in repeated_tables(run, 0.95)[0].rows} == {"image"}


@pytest.mark.parametrize(("gap", "belongs"), [(0.0, True), (0.0005, True), (0.001, False), (-0.002, False)])
def test_a_table_whose_numbers_of_this_seed_differ_is_of_another_run(
    folder: Path, gap: float, belongs: bool
) -> None:
    rows = rows_of(read(folder), "seed-1")
    rows[-1]["seed-1"] += gap
    run = shown(folder, "seeds", rows)
    assert [table.belongs for table in run.repeated] == [belongs]
    assert bool(repeated_tables(run, 0.95)) == belongs
    sentence = (
        f"{folder.as_posix()}/table.csv is of another run: its numbers of this run are not those on this page."
    )
    assert (sentence + " Run make seeds SEEDS=1,2,3 to make it anew." in repeated_text(run)) != belongs


def test_a_table_without_this_seed_or_with_results_that_the_run_lacks_is_of_another_run(folder: Path) -> None:
    rows = rows_of(read(folder), "seed-1")
    assert not shown(folder, "seeds", rows, seed=2).repeated[0].belongs
    more = {**rows[0], "model": "three-clean"}
    assert not shown(folder, "seeds", [*rows, more]).repeated[0].belongs
    assert shown(folder, "seeds", rows[:-3]).repeated[0].belongs, "seeds may lack a result, such as an AUROC"


def test_folds_belong_to_the_run_that_they_repeat(folder: Path) -> None:
    rows = rows_of(read(folder), "own")
    pooled = {"unit": "patient", "model": "one-adv", "measure": "clean balanced_accuracy, 40 patients pooled",
              "runs": 2, "mean": 0.61, "low": 0.5, "high": 0.7}  # fmt: skip
    run = shown(folder, "folds", [*rows, pooled])
    (table,) = repeated_tables(run, 0.95)
    assert (table.title, table.columns[-1]) == ("Variation over folds", "patients of all folds")
    row = next(
        row for row in table.rows if row[:4] == ["one", "adversarial", "patient", "clean: balanced accuracy"]
    )
    assert row[-4:] == ["0.500", "0.040", "0.125", "0.610 [0.500, 0.700]"]
    assert all(other[-1] == "–" for other in table.rows if other != row)
    assert "make seeds SEEDS=1,2,3" in repeated_text(run)[0]
    assert not shown(folder, "folds", rows_of(read(folder))).repeated[0].belongs, "no column of this run"


def test_a_result_that_this_run_does_not_have_may_be_blank(folder: Path) -> None:
    rows = [*rows_of(read(folder), "own"), {**rows_of(read(folder))[0], "measure": "clean auroc"}]
    assert shown(folder, "folds", rows).repeated[0].belongs
    blank: list[dict[str, Any]] = rows_of(read(folder), "own")
    blank[0]["own"] = None
    assert not shown(folder, "folds", blank).repeated[0].belongs


def test_without_a_table_two_sentences_name_the_commands(folder: Path) -> None:
    run = read(folder)
    read_repeated(run, folder / "metrics", [], 1)
    assert repeated_tables(run, 0.95) == []
    commands = [sentence.split("Run ")[1].split(" (")[0] for sentence in repeated_text(run)]
    assert commands == ["make seeds SEEDS=1,2,3", "make folds"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unit,model\na,b\n", "it lacks measure, runs, mean, sd, worst"),
        ("unit,model,measure,runs,mean,sd,worst\na,b,c,1,1,1,1\n", r"it lacks rows and columns seed-0, \.\.\."),
        ("unit,model,measure,runs,mean,sd,worst,seed-1\n", "it lacks"),
        ("unit,model,measure,runs,mean,sd,worst,seed-1\na,b,c,2,much,0,0,0\n", "it lacks mean"),
        ("unit,model,measure,runs,mean,sd,worst,fold-1\na,b,c,2,0,0,0,0\n", "it lacks rows and columns seed-0"),
    ],
)
def test_another_file_is_refused(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=rf"t\.csv: is no table of `make seeds`: {found}.*fix report\.repeated"):
        write_repeated(tmp_path / "t.csv", "seeds", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_stage_writes_the_file_that_the_report_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(folder / "a table.csv", pd.DataFrame(rows_of(read(folder), "seed-1")))
    monkeypatch.chdir(folder)
    item = {"repeated.over": "seeds", "repeated.file": "a table.csv"}
    run_stage(ROOT, monkeypatch, "repeated", **item)
    run = read(folder)
    read_repeated(run, folder / "metrics", ["seeds"], 1)
    assert run.repeated[0].belongs
    assert run.repeated[0].rows[KEY]["mean"] == 0.5


def test_the_committed_table_is_one_of_seeds(tmp_path: Path) -> None:
    write_repeated(ROOT / "docs" / "tables" / "seeds.csv", "seeds", tmp_path / "out.json")
