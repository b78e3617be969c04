"""The detection tables: the aware number beside the unaware, and nothing where nothing is guarded."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medrobust.core.records import write_table
from medrobust.report.collect import Folders
from medrobust.report.page.render import page_content, render_markdown
from medrobust.report.page.sections import ReportSettings, sections
from medrobust.report.run import Run
from medrobust.report.tables.detection import detection_tables, read_detection
from tests.report.runs import write_record

CLASSES = ["Non", "Mild"]


def record(adaptive: bool = True) -> dict[str, Any]:
    costs = {share: {"cost_without": 0.5, "cost_with": 0.4, "clean_rejected": 0.1} for share in ("0.01", "0.5")}
    row: dict[str, Any] = {
        "n_attacked": 60,
        "auroc": 0.981, "auroc_ci": [0.95, 0.99], "auprc_attacked": 0.9, "base_rate": 0.5,
        "successful": {
            "n_attacked": 40, "auroc": 0.99, "auroc_ci": [0.97, 1.0], "auprc_attacked": 0.85, "base_rate": 0.45,
        },
        "test_fpr": 0.13, "test_fpr_ci": [0.06, 0.24],
        "false_alarms": {"0.05": {"rate": 0.12, "ci": [0.05, 0.22]}},
        "per_class": {"Non": {"auprc_attacked": 0.8, "base_rate": 0.4}, "Mild": {"auprc_attacked": None}},
        "published_risk": {"cases": 12, "attacked_accuracy": 0.2, "r_without": 0.9, "r_with": 0.3},
        "risk": {"image": costs, "patient": costs},
    }  # fmt: skip
    if adaptive:
        common = {**row, "n": 16, "right": 12, "successful": 9, "successful_auroc_ci": [0.4, 0.99]}
        common |= {"successful_auprc_attacked": 0.75, "successful_base_rate": 0.36}
        ends = {"evasion_ci": {"0.05": [0.05, 0.9]}}
        row["adaptive"] = {
            "unaware": {**common, "successful_auroc": 0.98, "evasion": {"0.05": 0.1}, **ends},
            "worst": {
                **common,
                "successful_auprc_attacked": 0.7,
                "successful_auroc": 0.512,
                "evasion": {"0.05": 0.75},
                **ends,
            },
        }
    return {"fpr": 0.05, "suites": {"pgd": {"eps": 0.01, "gmm": row, "dfeat": {**row, "seen": False}}}}


@pytest.fixture
def run() -> Run:
    return Run(["net"], [], {"classes": CLASSES})


def test_aware_and_unaware_are_side_by_side(run: Run) -> None:
    run.detect["net", "adv"] = record()
    table = detection_tables(run, 0.95)[0]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["AUROC, all"] == "0.981 [0.950, 0.990], n 60"
    assert row["AUROC, successful"] == "0.990 [0.970, 1.000], n 40"
    assert row["AUROC, unaware"] == "0.980 [0.400, 0.990], n 9"
    assert row["AUROC, aware"] == "0.512 [0.400, 0.990], n 9"
    assert row["evasion, unaware"] == "0.100 [0.050, 0.900] of 12"
    assert (row["evasion, aware"], row["compared images"]) == ("0.750 [0.050, 0.900] of 12", "16")
    assert row["false alarms (nominal 5%)"] == "0.120 [0.050, 0.220]"
    assert table.rows[1][3] == "dfeat (trained on another suite)"


def test_a_detector_without_aware_attacker_is_marked(run: Run) -> None:
    run.detect["net", "adv"] = record(adaptive=False)
    assert "not attacked" in detection_tables(run, 0.95)[0].rows[0]


def test_tables_of_the_study_and_of_the_costs(run: Run) -> None:
    run.detect["net", "clean"] = record()
    _, classes, published, priced = detection_tables(run, 0.95)
    assert classes.columns[5:] == ["successful attacks", "all", *CLASSES]
    assert classes.rows[0][4:] == ["unaware", "40", "0.850 (0.450)", "0.800 (0.400)", "–"]
    assert [row[5] for row in classes.rows[:3]] == ["40", "9", "9"]
    alarms = "0.130 [0.060, 0.240] (nominal 5%)"
    assert published.rows[0][6:] == ["0.200", "12", "0.900", "0.300", alarms]
    assert [row[-1] for row in published.rows[:3]] == [alarms] * 3
    assert priced.columns[6:] == ["unit", "0.01", "0.5"]
    assert priced.rows[0][6:] == ["image", *["0.500 → 0.400 (10%)"] * 2]
    for table in (classes, published, priced):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_every_table_has_the_aware_attacker_beside_the_unaware(run: Run) -> None:
    run.detect["net", "clean"] = record()
    _, classes, published, priced = detection_tables(run, 0.95)
    for table, units in ((classes, 1), (published, 1), (priced, 2)):
        attackers = [row[4] for row in table.rows[: 3 * units : units]]
        assert attackers == ["unaware", "unaware, same images", "aware"]
    assert [row[6] for row in classes.rows[:3]] == ["0.850 (0.450)", "0.750 (0.360)", "0.700 (0.360)"]
    run.detect["net", "clean"] = record(adaptive=False)
    for table in detection_tables(run, 0.95)[1:]:
        (row,) = [row for row in table.rows if row[3] == "gmm" and row[4] == "aware"][:1]
        assert row[5] == "not attacked"
        assert set(row[7:]) == {"–"}


def test_the_page_has_the_section_only_where_something_is_guarded(run: Run) -> None:
    settings = ReportSettings("t", 1, "patient", 0.95, {})
    assert "detection" not in [section.name for section in sections(run, settings)]
    run.detect["net", "adv"] = record()
    assert "## Detection" in render_markdown(page_content(run, settings))


def test_records_are_read_by_name_and_missing_ones_named(run: Run, tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path / "metrics", tmp_path / "plots", tmp_path, tmp_path)
    write_record(folders.metrics / "detect" / "net-adv.json", record())
    for part in ("curves", "risk", "costs"):
        write_table(folders.plots / "detect" / "net-adv" / f"{part}.csv", pd.DataFrame({"images": ["all"]}))
    read_detection(run, folders, [("net", "clean"), ("net", "adv")])
    assert list(run.detect) == list(run.drawn) == [("net", "adv")]
    assert [Path(name).name for name in run.missing] == ["net-clean.json", "curves.csv", "risk.csv", "costs.csv"]
