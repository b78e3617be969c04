"""Ensemble methods under attack: attacked methods have numbers of this run, others are listed as not attacked."""

import re
from pathlib import Path

import pytest

from medrobust.core.records import read_metrics, write_json
from medrobust.report.page.latex import latex
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.run import Run
from medrobust.report.tables.checklist import checks_table
from medrobust.report.tables.cost import cost_table
from medrobust.report.tables.ensemble_attacks import attacked_methods_table
from tests.report.pipeline import lock
from tests.report.runs import (
    SETTINGS,
    attack_record,
    checks_record,
    read,
    text_of,
    write_attacked_method,
    write_record,
    write_run,
)

CLEAN = "0.700 [0.600, 0.800]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path)
    write_attacked_method(tmp_path)
    lock(tmp_path)
    return tmp_path


def rows(run: Run) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in attacked_methods_table(run, 0.95).rows}


def test_only_the_selected_method_is_attacked_unless_others_are_named(folder: Path) -> None:
    run = read(folder, checked=True)
    table = attacked_methods_table(run, 0.95)
    assert table.columns[1:] == ["clean", "pgd ε = 0.005", "pgd ε = 0.01", "checklist"]
    assert rows(run)["equal ensemble"] == [CLEAN, "–", "–", "–"]
    assert rows(run)["convex ensemble (selected)"][1:] == [
        "0.500 [0.400, 0.600]", "0.250 [0.200, 0.300]", "no problem found"
    ]  # fmt: skip
    assert rows(run)["one-adv"][2] == "0.250 [0.200, 0.300]"
    assert "Not attacked: equal. Run dvc exp run -S 'ensemble.attacked=[equal]' to attack them." in table.note
    assert "on 30 test images of 10 patients; brackets are 95% intervals" in table.note
    assert not [path for path in run.missing if "methods" in path]


def test_a_named_method_has_its_numbers_everywhere(folder: Path) -> None:
    run = read(folder, checked=True, attacked=("equal",))
    assert run.foreign == {}
    assert rows(run)["equal ensemble"] == [CLEAN, "0.375 [0.400, 0.600]", "0.125 [0.200, 0.300]", "suspect"]
    assert "Not attacked" not in attacked_methods_table(run, 0.95).note
    html = text_of(render_html(page_content(run, SETTINGS), {}))
    for page in (html, render_markdown(page_content(run, SETTINGS)), latex(attacked_methods_table(run, 0.95))):
        assert re.search(r"equal ensemble.*0\.375 \[0\.400, 0\.600\].*0\.125", page)
    assert [row for row in cost_table(run).rows if row[0] == "equal ensemble"] == [
        ["equal ensemble", "adversarial", "1766", "302"]
    ]


def test_a_method_that_was_not_fitted_is_named_attacked_or_not(folder: Path) -> None:
    write_record(folder / "metrics" / "methods" / "stacking-pgd.json", {"not_fitted": "too few"})
    for attacked in ((), ("equal", "stacking")):
        run = read(folder, attacked=attacked)
        assert rows(run)["stacking ensemble"] == ["not fitted", "–", "–", "–"]
        note = attacked_methods_table(run, 0.95).note
        assert "Not fitted, stacking: too few validation patients have Severe." in note
        assert "Not attacked: stacking" not in note


def test_an_attack_that_left_nothing_is_missing(folder: Path) -> None:
    (folder / "metrics" / "methods" / "equal-pgd.json").unlink()
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal ensemble"] == [CLEAN, "missing", "missing", "missing"]
    assert [Path(path).name for path in run.missing] == ["equal-pgd.json"]


def test_a_number_that_no_stage_wrote_is_left_out(folder: Path) -> None:
    path = folder / "metrics" / "methods" / "equal-pgd.json"
    write_record(path, {**read_metrics(path), "queries": 9})
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal ensemble"][1] == "missing"
    assert run.foreign == {str(path): "not what stage attack_method@equal-pgd wrote when it last ended"}


def test_an_attack_on_an_earlier_rule_is_left_out(folder: Path) -> None:
    """The ensemble was fitted again alone (`dvc repro -s`); the attack was not run again."""
    before = (folder / "dvc.lock").read_text()
    write_json(folder / "data" / "methods" / "equal" / "card.json", {"method": "equal", "members": {}})
    lock(folder)
    after = (folder / "dvc.lock").read_text()
    cell = re.compile(r"  attack_method@equal-pgd:\n(?:    .*\n|  - .*\n)+")
    (old,) = cell.findall(before)
    (folder / "dvc.lock").write_text(cell.sub(old, after))
    run = read(folder, checked=True, attacked=("equal",))
    assert rows(run)["equal ensemble"][1] == "missing"
    reason = "stage attack_method@equal-pgd ran on an earlier data/methods/equal"
    assert run.foreign == {str(folder / "metrics" / "methods" / "equal-pgd.json"): reason}


def test_the_checklist_of_a_named_method_counts(folder: Path) -> None:
    path = folder / "metrics" / "checks" / "equal-method.json"
    assert read(folder).worst_verdict() == "no problem found"
    assert read(folder, attacked=("equal",)).worst_verdict() == "suspect"
    write_record(path, checks_record("invalid"))
    run = read(folder, attacked=("equal",))
    assert (run.worst_verdict(), run.worst_verdict("equal ensemble", "adv")) == ("invalid", "invalid")
    assert [row[:4] for row in checks_table(run).rows] == [["equal ensemble", "adversarial", "pgd", "restarts"]]
    path.unlink()
    run = read(folder, attacked=("equal",))
    assert rows(run)["equal ensemble"][-1] == "unchecked"
    assert run.missing == [str(path)]


def test_without_the_comparison_attacked_rows_remain(folder: Path) -> None:
    path = folder / "metrics" / "ensemble.json"
    write_record(path, {**read_metrics(path), "methods": {}})
    run = read(folder, attacked=("equal",))
    assert rows(run)["equal ensemble"][:2] == ["–", "0.375 [0.400, 0.600]"]
    assert rows(run)["convex ensemble (selected)"][:2] == ["–", "0.500 [0.400, 0.600]"]


def test_an_ensemble_of_clean_models_has_that_name(folder: Path) -> None:
    write_record(
        folder / "metrics" / "attack" / "ensemble-clean-pgd.json", {**attack_record(), "clean_accuracy": 0.9}
    )
    run = read(folder, regime="clean")
    assert list(run.models())[-1] == ("ensemble", "clean")
    assert run.attacks.records["ensemble", "clean", "pgd"]["clean_accuracy"] == 0.9
    assert ("ensemble", "adv", "pgd") not in run.attacks.records
    assert rows(run)["convex ensemble (selected)"][1] == "0.500 [0.400, 0.600]"
