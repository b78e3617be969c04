"""Calibration and decisions on the page: AUROC, operating points, reliability, ROC and decision curve."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medrobust.core.decisions import best_threshold
from medrobust.core.metrics import auroc
from medrobust.report.charts.decisions import decision_charts
from medrobust.report.page.render import page_content, render_html
from medrobust.report.run import Run
from medrobust.report.scores import score_models
from medrobust.report.tables.decisions import discrimination_table, operating_table
from medrobust.report.tables.table import NONE
from tests.report.runs import SETTINGS, predictions, read


def two_classes(val: bool = True) -> Run:
    """A model of two classes on 60 validation and 60 test images, attacked images from the transfer matrix."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat([0, 1], 30), 2)

    def answers(shift: float) -> pd.DataFrame:
        chance = 1 / (1 + np.exp(-(rng.normal(size=120) + shift * (2 * labels - 1))))
        table = pd.DataFrame({"logprob_0": np.log(1 - chance), "logprob_1": np.log(chance), "label": labels})
        ids = [f"i{number}" for number in range(120)]
        table = table.assign(id=ids, patient=[f"p{number // 3}" for number in range(120)])
        return table.assign(pred=(chance > 0.5).astype(int), split=np.repeat(["val", "test"], 60))

    run = Run(["one"], ["pgd"], header={"classes": ["no", "yes"]})
    clean = answers(1)
    run.answers.predictions["one", "adv"] = clean if val else clean[clean["split"] == "test"]
    run.answers.scores = answers(-0.5)[60:].assign(source="one-adv", judge="one-adv")
    run.ensemble.transfer.update({"suite": "pgd", "eps": 0.02})
    score_models(run, resamples=100, confidence=0.95)
    return run


def test_the_auroc_is_that_of_test_images_clean_and_attacked() -> None:
    run = two_classes()
    table = discrimination_table(run, 0.95)
    assert table.columns == ["model", "training", "clean: 60 images", "pgd ε 0.02: 60 images"]
    test = run.answers.predictions["one", "adv"][60:]
    expected = auroc(test["label"].to_numpy(), test[["logprob_0", "logprob_1"]].to_numpy())
    assert table.rows[0][2].startswith(f"{expected:.3f} [")
    assert float(table.rows[0][3][:5]) < 0.5, "an attack that makes the score point the wrong way"


def test_the_operating_point_is_chosen_on_validation_and_measured_on_test() -> None:
    run = two_classes()
    table = operating_table(run, 0.95)
    predictions_ = run.answers.predictions["one", "adv"]
    val, test = predictions_[:60], predictions_[60:]
    threshold = best_threshold(val["label"].to_numpy() == 1, np.exp(val["logprob_1"].to_numpy()))
    called = np.exp(test["logprob_1"].to_numpy()) >= threshold
    positive = test["label"].to_numpy() == 1
    (row,) = table.rows
    assert row[2:4] == ["yes", f"{threshold:.3f}"]
    assert row[4].startswith(f"{called[positive].mean():.3f} [")
    assert row[5].startswith(f"{(~called)[~positive].mean():.3f} [")
    assert not table.folded


def test_without_validation_images_there_is_no_operating_point() -> None:
    assert operating_table(two_classes(val=False), 0.95).rows == []


def test_two_classes_have_a_decision_curve_and_its_reference() -> None:
    charts = {chart.name: chart for chart in decision_charts(two_classes(), 0.95)}
    assert set(charts) == {
        f"{kind}-{images}" for kind in ("reliability", "roc", "decision") for images in ("clean", "pgd-0.02")
    }
    curve = charts["decision-clean"]
    assert [line["name"] for line in curve.series] == ["one, adversarial", "all positive"]
    reference = dict(map(tuple, curve.series[1]["points"]))
    assert reference[0.5] == 0, "half of the images are positive"
    assert reference[0.02] == pytest.approx(0.5 - 0.5 * 0.02 / 0.98, abs=1e-4)
    assert all(min(point[1:]) >= 0 for line in curve.series for point in line["points"])
    assert "class yes" in charts["roc-clean"].title


def test_reliability_shows_accuracy_with_intervals_against_confidence() -> None:
    chart = next(chart for chart in decision_charts(two_classes(), 0.95) if chart.name == "reliability-clean")
    points = np.array(chart.series[0]["points"])
    assert points.shape == (3, 4), "60 images in bins of 20"
    assert (np.diff(points[:, 0]) > 0).all()
    assert ((points[:, 2] <= points[:, 1]) & (points[:, 1] <= points[:, 3])).all()
    assert chart.series[-1]["points"] == [[points[0, 0], points[0, 0]], [1.0, 1.0]]


def test_more_classes_have_each_against_the_rest_and_no_decision_curve(folder: Path) -> None:
    run = read(folder)
    assert not [chart for chart in decision_charts(run, 0.95) if chart.name.startswith("decision")]
    table = operating_table(run, 0.95)
    assert table.folded
    assert len(table.rows) == 5 * 3
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[2] for row in table.rows[:3]] == ["Non <b>", "Mild", "Severe"]
    page = render_html(page_content(run, SETTINGS), {})
    assert page.index('id="comparisons"') < page.index('id="decisions"') < page.index('id="backbones"')


def test_a_run_without_a_transfer_matrix_has_clean_images_only(folder: Path) -> None:
    run = read(folder)
    run.scored.clear()
    run.answers.scores = None
    score_models(run, resamples=20, confidence=0.95)
    assert discrimination_table(run, 0.95).columns[2:] == ["clean: 24 images"]


def test_a_class_without_test_images_has_no_auroc(folder: Path) -> None:
    run = read(folder)
    run.scored.clear()
    table = predictions(0)
    run.answers.predictions["one", "clean"] = table[table["label"] > 0]
    score_models(run, resamples=20, confidence=0.95)
    assert discrimination_table(run, 0.95).rows[0][2] == NONE
    assert not [
        line for chart in decision_charts(run, 0.95) if chart.name == "roc-clean" for line in chart.series
        if line["name"] == "one, clean"
    ]  # fmt: skip
