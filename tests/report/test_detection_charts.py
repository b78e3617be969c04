"""What is drawn of detection: aware attackers beside unaware ones, at rates and thresholds that were measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medrobust.core.params.detection import RiskParams
from medrobust.detection.cost_tables import (
    CleanAndAttacked,
    choose_thresholds,
    costs_by_share,
    costs_by_threshold,
    prices_of,
)
from medrobust.detection.measures import ScoredImages
from medrobust.detection.result_tables import DetectionTables, RowLabel
from medrobust.report.charts.detection import GRID, GuardedSuite, detection_charts, guarded_suites
from medrobust.report.figures.detection import detection_figures
from medrobust.report.figures.draw import save
from medrobust.report.run import Run
from tests.params import default_block

SHARES = [0.001, 0.1, 0.5]


def answers(gap: float, wrong: bool, seed: int) -> ScoredImages:
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    said = np.eye(2)[(labels + wrong) % 2] * 0.8 + 0.1
    return ScoredImages(labels, said, np.array([f"p{n // 4:02}" for n in range(60)]), rng.normal(gap, 1, 60))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A guarded model: an unaware attack that a detector sees, and an aware one that it does not."""
    tables, prices = DetectionTables(), prices_of(default_block(RiskParams, "detect.risk"), 2, ordered=True)
    clean, hidden, plain = answers(0, False, 0), answers(-0.5, True, 1), answers(4, True, 2)
    thresholds = choose_thresholds(CleanAndAttacked(clean, plain), 0, prices, SHARES)
    for attacker, images, attacked in (
        ("unaware", "all", plain), ("unaware", "paired", plain), ("aware", "paired", hidden)
    ):  # fmt: skip
        label = RowLabel("pgd", "gmm", attacker, images)  # type: ignore[arg-type]
        both = CleanAndAttacked(clean, attacked)
        tables.add_curves(label, both)
        risk, costs = costs_by_share(both, thresholds, prices), costs_by_threshold(both, thresholds, prices)
        tables.add_costs(label, risk, costs)
    tables.scores.append(pd.DataFrame({"id": ["a"]}))
    tables.write(tmp_path / "scores.parquet", tmp_path / "plots")
    found = Run(["net"], [])
    found.drawn["net", "clean"] = {
        name: pd.read_csv(tmp_path / "plots" / f"{name}.csv") for name in ("curves", "risk", "costs")
    }
    pair = {
        "unaware": {"n": 60, "patients": 15, "successful": 60},
        "worst": {"n": 60, "patients": 15, "successful": 59},
    }
    found.detect["net", "clean"] = {"suites": {"pgd": {"eps": 0.01, "gmm": {"adaptive": pair}}}}
    return found


def part(run: Run) -> GuardedSuite:
    (found,) = guarded_suites(run)
    return found


def test_every_chart_has_both_attackers(run: Run) -> None:
    charts = detection_charts(run)
    assert [chart.name.split("-net")[0] for chart in charts] == [
        "roc", "pr", "risk-image", "risk-patient", "threshold"
    ]  # fmt: skip
    assert len({chart.name for chart in charts}) == 5
    for chart in charts:
        assert chart.title.endswith(" (60 images of 15 patients)")
        names = [line["name"].split(", n ")[0] for line in chart.series]
        assert [name for name in names if not name.startswith("no detector")] == ["gmm, unaware", "gmm, aware"]
        assert [line["dashed"] for line in chart.series][-2:] == [False, True]
        assert all(np.isfinite(line["points"]).all() for line in chart.series)


def test_rates_are_those_of_the_curve(run: Run) -> None:
    table = run.drawn["net", "clean"]["curves"]
    rows = table[(table["attacker"] == "aware") & (table["attacks"] == "successful")]
    points = dict(part(run).rates("roc", "gmm", "aware"))
    assert list(points) == list(GRID)
    assert points[0.05] == pytest.approx(rows[rows["fpr"] <= 0.05]["tpr"].max(), abs=1e-4)
    assert points[1.0] == 1
    assert dict(part(run).rates("roc", "gmm", "unaware"))[0.05] > 0.9
    assert points[0.05] < 0.3
    assert part(run).base_rate("gmm", "aware") == 0.5


def test_precision_is_that_of_the_strictest_threshold_of_a_recall(run: Run) -> None:
    """A detector that rejects clean images first is precise nowhere, and no laxer threshold may replace it."""
    table = run.drawn["net", "clean"]["curves"]
    rows = pd.DataFrame({"fpr": [0.2, 0.5, 0.5, 0.5, 1.0], "tpr": [0.0, 0.0, 0.4, 1.0, 1.0],
                         "precision": [0.0, 0.0, 0.25, 0.6, 0.4]})  # fmt: skip
    named = {"suite": "pgd", "detector": "gmm", "attacker": "aware", "images": "paired", "attacks": "successful"}
    others = table[(table["attacker"] != "aware") | (table["attacks"] != "successful")]
    run.drawn["net", "clean"]["curves"] = pd.concat([others, rows.assign(**named)])
    points = dict(part(run).rates("pr", "gmm", "aware"))
    assert (points[0.0], points[0.01], points[0.4], points[0.5], points[1.0]) == (0.0, 0.25, 0.25, 0.6, 0.6)
    assert dict(part(run).rates("roc", "gmm", "aware"))[0.5] == 1


def test_the_slider_names_the_cheapest_threshold_of_a_share(run: Run) -> None:
    chart = next(chart for chart in detection_charts(run) if chart.name.startswith("risk-image"))
    assert chart.rows is not None
    assert list(chart.rows) == ["0.001", "0.1", "0.5"]
    unaware, aware = (dict(zip(chart.columns, row, strict=True)) for row in chart.rows["0.5"])
    assert unaware["threshold"] == aware["threshold"]  # chosen before anybody attacks
    assert float(unaware["cost"]) < 0.5 * float(unaware["no detector"])
    assert float(aware["cost"]) > 0.7 * float(aware["no detector"])


def test_a_threshold_that_rejects_all_or_none_is_named(run: Run) -> None:
    risk = run.drawn["net", "clean"]["risk"]
    risk["threshold"] = np.where(risk["share"] == 0.5, -np.inf, np.inf)
    rows = next(chart for chart in detection_charts(run) if chart.rows).rows
    assert rows is not None
    assert (rows["0.001"][0][4], rows["0.5"][0][4]) == ("rejects none", "rejects all")


def test_cost_by_threshold_goes_from_rejecting_none_to_rejecting_all(run: Run) -> None:
    points = dict(part(run).costs_by_threshold("gmm", "unaware"))
    costs = run.drawn["net", "clean"]["costs"]
    rows = costs[(costs["attacker"] == "unaware") & (costs["images"] == "paired") & (costs["unit"] == "image")]
    everything = rows[np.isneginf(rows["threshold"])].iloc[0]
    share = part(run).share
    assert share == 0.1
    assert points[1.0] == pytest.approx(
        (1 - share) * everything["cost_clean"] + share * everything["cost_attacked"]
    )
    none_clean = rows[rows["clean_rejected"] == 0].iloc[0]
    assert points[0.0] == pytest.approx(
        (1 - share) * none_clean["cost_clean"] + share * none_clean["cost_attacked"], abs=1e-5
    )


def test_figures_are_written_and_the_same_each_time(run: Run, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append({key: save(figure, tmp_path / name, key) for key, figure in detection_figures(run).items()})
    assert list(found[0]) == ["detection_net-clean_pgd"]
    one, two = (Path(paths["detection_net-clean_pgd"]) for paths in found)
    assert one.read_bytes() == two.read_bytes()
    text = one.with_suffix(".svg").read_text()
    for words in ("true-positive rate", "share of attacked images", "cost by patient", "unaware", "aware"):
        assert words in text


def test_an_unaware_curve_is_never_drawn_alone(run: Run) -> None:
    tables = run.drawn["net", "clean"]
    run.drawn["net", "clean"] = {name: table[table["images"] == "all"] for name, table in tables.items()}
    assert detection_charts(run) == []
    assert detection_figures(run) == {}
