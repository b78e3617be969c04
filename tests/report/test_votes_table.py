"""Methods under attack: who was attacked has numbers of this run, and who was not is said to be so."""

import re
from pathlib import Path

import pytest

from medrobust.core.records import read_metrics, write_json
from medrobust.report.collect import Run
from medrobust.report.page.latex import latex
from medrobust.report.page.page import render_html, render_markdown
from medrobust.report.tables.models import checks_table, cost_table
from medrobust.report.tables.votes import attacks_table
from tests.report.runs import (
    SETTINGS,
    attack_record,
    checks_record,
    lock,
    read,
    text_of,
    write_attacked_vote,
    write_record,
    write_run,
)

CLEAN = "0.700 [0.600, 0.800]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path)
    write_attacked_vote(tmp_path)
    lock(tmp_path)
    return tmp_path


def rows(run: Run) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in attacks_table(run, 0.95).rows}


def test_only_the_method_in_force_is_attacked_unless_others_are_named(folder: Path) -> None:
    run = read(folder, checked=True)
    table = attacks_table(run, 0.95)
    assert table.columns[1:] == ["clean", "pgd ε = 0.005", "pgd ε = 0.01", "checklist"]
    assert rows(run)["equal vote"] == [CLEAN, "–", "–", "–"]
    assert rows(run)["convex vote (in force)"][1:] == [
        "0.500 [0.400, 0.600]", "0.250 [0.200, 0.300]", "no problem found"
    ]  # fmt: skip
    assert rows(run)["one-adv"][2] == "0.250 [0.200, 0.300]"
    assert "Not attacked: equal (dvc exp run -S 'ensemble.attacked=[equal]')." in table.note
    assert "on 30 test images of 10 patients; brackets are 95% intervals" in table.note
    assert not [path for path in run.missing if "votes" in path]


def test_a_named_method_has_its_numbers_everywhere(folder: Path) -> None:
    run = read(folder, checked=True, attacked=("equal",))
    assert run.foreign == {}
    assert rows(run)["equal vote"] == [CLEAN, "0.375 [0.400, 0.600]", "0.125 [0.200, 0.300]", "suspect"]
    assert "Not attacked" not in attacks_table(run, 0.95).note
    html = text_of(render_html(run, {}, SETTINGS))
    for page in (html, render_markdown(run, SETTINGS), latex(attacks_table(run, 0.95))):
        assert re.search(r"equal vote.*0\.375 \[0\.400, 0\.600\].*0\.125", page)
    assert [row for row in cost_table(run).rows if row[0] == "equal vote"] == [
        ["equal vote", "adversarial", "–", "1.0", "60.0", "–"]
    ]


def test_an_impossible_method_says_so_attacked_or_not(folder: Path) -> None:
    write_record(folder / "metrics" / "votes" / "stacking-pgd.json", {"not_fitted": "too few"})
    for attacked in ((), ("equal", "stacking")):
        run = read(folder, attacked=attacked)
        assert rows(run)["stacking vote"] == ["not possible", "–", "–", "–"]
        note = attacks_table(run, 0.95).note
        assert "Not possible, stacking: too few validation patients have Severe." in note
        assert "Not attacked: stacking" not in note


def test_an_attack_that_left_nothing_is_missing(folder: Path) -> None:
    (folder / "metrics" / "votes" / "equal-pgd.json").unlink()
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal vote"] == [CLEAN, "missing", "missing", "missing"]
    assert [Path(path).name for path in run.missing] == ["equal-pgd.json"]


def test_a_number_that_no_stage_wrote_is_left_out(folder: Path) -> None:
    path = folder / "metrics" / "votes" / "equal-pgd.json"
    write_record(path, {**read_metrics(path), "seconds": 9.0})
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal vote"][1] == "missing"
    assert run.foreign == {str(path): "not what stage attack_vote@equal-pgd wrote when it last ended"}


def test_an_attack_on_an_earlier_rule_is_left_out(folder: Path) -> None:
    """The vote was fitted anew on its own (`dvc repro -s`), and the attack of before still stands."""
    before = (folder / "dvc.lock").read_text()
    write_json(folder / "data" / "votes" / "equal" / "card.json", {"method": "equal", "members": {}})
    lock(folder)
    after = (folder / "dvc.lock").read_text()
    cell = re.compile(r"  attack_vote@equal-pgd:\n(?:    .*\n|  - .*\n)+")
    (old,) = cell.findall(before)
    (folder / "dvc.lock").write_text(cell.sub(old, after))
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal vote"][1] == "missing"
    reason = "stage attack_vote@equal-pgd ran on an earlier data/votes/equal"
    assert run.foreign == {str(folder / "metrics" / "votes" / "equal-pgd.json"): reason}


def test_what_the_checklist_says_of_a_named_method_counts(folder: Path) -> None:
    path = folder / "metrics" / "checks" / "equal-vote.json"
    assert read(folder).verdict() == "no problem found"
    assert read(folder, attacked=("equal",)).verdict() == "suspect"
    write_record(path, checks_record("invalid"))
    run = read(folder, attacked=("equal",))
    assert (run.verdict(), run.verdict("equal vote", "adv")) == ("invalid", "invalid")
    assert [row[:4] for row in checks_table(run).rows] == [["equal vote", "adversarial", "pgd", "restarts"]]
    path.unlink()
    run = read(folder, attacked=("equal",))
    assert rows(run)["equal vote"][-1] == "unchecked"
    assert run.missing == [str(path)]


def test_without_the_comparison_attacked_rows_stand(folder: Path) -> None:
    path = folder / "metrics" / "ensemble.json"
    write_record(path, {**read_metrics(path), "methods": {}})
    run = read(folder, attacked=("equal",))
    assert rows(run)["equal vote"][:2] == ["–", "0.375 [0.400, 0.600]"]
    assert rows(run)["convex vote (in force)"][:2] == ["–", "0.500 [0.400, 0.600]"]


def test_a_vote_of_clean_models_has_that_name(folder: Path) -> None:
    write_record(
        folder / "metrics" / "attack" / "ensemble-clean-pgd.json", {**attack_record(), "clean_accuracy": 0.9}
    )
    run = read(folder, vote="clean")
    assert list(run.models())[-1] == ("ensemble", "clean")
    assert run.attack["ensemble", "clean", "pgd"]["clean_accuracy"] == 0.9
    assert ("ensemble", "adv", "pgd") not in run.attack
    assert rows(run)["convex vote (in force)"][1] == "0.500 [0.400, 0.600]"
