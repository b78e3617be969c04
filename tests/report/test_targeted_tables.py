"""Attacks with a target have a table of their own; others have none."""

from pathlib import Path

from medrobust.core.records import read_metrics
from medrobust.report.page.render import page_content, render_html
from medrobust.report.page.sections import sections
from medrobust.report.tables.targeted import targeted_tables
from tests.report.runs import SETTINGS, read, write_record

TARGETED = {
    "targeted_n": {"next_down": 12, "2": 0},
    "targeted_success": {"next_down": {"0.005": 0.25, "0.01": 0.5}, "2": {"0.005": None, "0.01": None}},
    "targeted_success_ci": {
        "next_down": {"0.005": [0.1, 0.4], "0.01": [0.3, 0.7]}, "2": {"0.005": None, "0.01": None},
    },
}  # fmt: skip


def test_a_suite_without_a_target_has_no_table(folder: Path) -> None:
    assert targeted_tables(read(folder), 0.95) == []


def test_a_target_has_one_row_per_model_and_one_column_per_radius(folder: Path) -> None:
    path = folder / "metrics" / "attack" / "one-adv-pgd.json"
    write_record(path, read_metrics(path) | TARGETED)
    run = read(folder)
    [table] = targeted_tables(run, 0.95)
    assert table.columns == ["model", "training", "target", "n", "ε = 0.005", "ε = 0.01", "checklist"]
    assert table.rows == [
        [
            "one",
            "adversarial",
            "next_down",
            "12",
            "0.250 [0.100, 0.400]",
            "0.500 [0.300, 0.700]",
            "no problem found",
        ],
        ["one", "adversarial", "2", "0", "–", "–", "no problem found"],
    ]
    assert table in next(section for section in sections(run, SETTINGS) if section.name == "attacks").tables
    assert "Targeted success: pgd" in render_html(page_content(run, SETTINGS), {})
