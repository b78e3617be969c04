"""Calibration and decisions on the page: AUROC, operating points, reliability, ROC and decision curve."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medrobust.core.decisions import best_threshold
from medrobust.core.lineage import MADE_ON
from medrobust.core.metrics import auroc
from medrobust.core.records import write_table
from medrobust.core.reliability import calibration_line
from medrobust.report.charts.decisions import decision_charts
from medrobust.report.page.render import page_content, render_html
from medrobust.report.run import Run
from medrobust.report.scores import log_probabilities, score_models
from medrobust.report.tables.calibration import calibration_table, patient_calibration_table
from medrobust.report.tables.decisions import discrimination_table, operating_table
from medrobust.report.tables.table import NONE, ranged
from tests.report.runs import SETTINGS, predictions, read, write_record


def two_classes(val: bool = True) -> Run:
    """A model of two classes: 60 validation and 60 test images, 40 and 40 patients; 20 of each are attacked."""
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
    run.answers.scores = answers(-0.5)[60::3].assign(source="one-adv", judge="one-adv")
    patients = answers(1)[20:100].reset_index(drop=True).assign(split=np.repeat(["val", "test"], 40))
    run.answers.patients["one", "adv"] = patients.assign(patient=[f"p{k}" for k in range(80)])
    run.answers.patients_scored["one", "adv"] = answers(-0.5)[60::3]
    run.ensemble.transfer.update({"suite": "pgd", "eps": 0.02})
    score_models(run, resamples=100, confidence=0.95)
    return run


def test_the_auroc_is_that_of_test_images_clean_and_attacked() -> None:
    run = two_classes()
    table = discrimination_table(run, 0.95)
    assert table.columns == ["model", "training", "clean: 60 images", "pgd ε 0.02: 20 images"]
    by_patient = discrimination_table(run, 0.95, "patient")
    assert by_patient.title == "AUROC by patient"
    assert by_patient.columns[2:] == ["clean: 40 patients", "pgd ε 0.02: 20 patients"]
    assert "transfer matrix" in table.note
    assert "transfer matrix" not in by_patient.note
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
    attacked = run.answers.scores
    assert attacked is not None
    positive, called = attacked["label"] == 1, np.exp(attacked["logprob_1"]) >= threshold
    assert row[6].startswith(f"{called[positive].mean():.3f} [")
    assert row[7].startswith(f"{(~called)[~positive].mean():.3f} [")


def test_the_operating_point_of_patients_is_chosen_on_validation_patients() -> None:
    run = two_classes()
    (row,) = operating_table(run, 0.95, "patient").rows
    patients = run.answers.patients["one", "adv"]
    val, test = patients[:40], patients[40:]
    threshold = best_threshold(val["label"].to_numpy() == 1, np.exp(val["logprob_1"].to_numpy()))
    assert row[3] == f"{threshold:.3f}" != operating_table(run, 0.95).rows[0][3]
    called = np.exp(test["logprob_1"].to_numpy()) >= threshold
    assert row[4].startswith(f"{called[test['label'] == 1].mean():.3f} [")
    del run.answers.patients["one", "adv"]
    assert operating_table(run, 0.95, "patient").rows == []


def test_slope_and_intercept_have_intervals_clean_and_attacked(folder: Path) -> None:
    run = read(folder)
    scores = run.answers.scores
    assert scores is not None
    own = scores[(scores["source"] == "one-clean") & (scores["judge"] == "one-clean")]
    line = calibration_line(
        own["label"].to_numpy(), log_probabilities(own), own["patient"].to_numpy().astype(str), 0.95
    )
    table = calibration_table(run, 0.95)
    row = next(row for row in table.rows if row[:3] == ["one", "clean", "pgd ε 0.01"])
    slope = line["calibration_slope"]
    assert isinstance(slope, float)
    assert row[table.columns.index("calibration slope")] == ranged(slope, *line["calibration_slope_ci"])  # type: ignore[misc]
    run.answers.scores = None
    assert calibration_table(run, 0.95).rows[0][-3] == "0.900", "the matrix alone has no interval"


def test_calibration_by_patient_clean_and_attacked() -> None:
    run = two_classes()
    table = patient_calibration_table(run, 0.95)
    assert [row[:4] for row in table.rows] == [
        ["one", "adversarial", "clean", "40"], ["one", "adversarial", "pgd ε 0.02", "20"],
    ]  # fmt: skip
    assert all(re.fullmatch(r"-?\d\.\d{3} \[-?\d.*\]", cell) for row in table.rows for cell in row[4:8])
    assert patient_calibration_table(Run(["one"], []), 0.95).rows == []


def test_without_validation_images_there_is_no_operating_point() -> None:
    assert operating_table(two_classes(val=False), 0.95).rows == []


def test_two_classes_have_a_decision_curve_and_its_reference() -> None:
    charts = {chart.name: chart for chart in decision_charts(two_classes(), 0.95)}
    assert set(charts) == {
        f"{kind}-{unit}{images}" for kind in ("reliability", "roc", "decision")
        for unit in ("", "patients-") for images in ("clean", "pgd-0.02")
    }  # fmt: skip
    assert charts["reliability-pgd-0.02"].title == "Reliability, images under pgd ε 0.02"
    assert charts["reliability-patients-clean"].title == "Reliability, patients, clean images"
    curve = charts["decision-clean"]
    assert [line["name"] for line in curve.series] == ["one, adversarial", "all positive"]
    reference = dict(map(tuple, curve.series[1]["points"]))
    assert reference[0.5] == 0, "half of the images are positive"
    assert reference[0.02] == pytest.approx(0.5 - 0.5 * 0.02 / 0.98, abs=1e-4)
    assert all(min(point[1:]) >= 0 for line in curve.series for point in line["points"])
    assert "class yes" in charts["roc-clean"].title


def test_reliability_shows_accuracy_with_intervals_against_confidence() -> None:
    charts = {chart.name: chart for chart in decision_charts(two_classes(), 0.95)}
    chart = charts["reliability-clean"]
    points = np.array(chart.series[0]["points"])
    assert points.shape == (6, 4), "60 images in bins of 10"
    assert len(charts["reliability-pgd-0.02"].series[0]["points"]) == 4, "as many attacked images as by default"
    assert len(charts["reliability-patients-pgd-0.02"].series[0]["points"]) == 4
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


def test_patients_without_a_unit_or_of_other_weights_are_not_scored(folder: Path) -> None:
    tables = discrimination_table(read(folder), 0.95, "patient")
    assert tables.columns[2:] == ["clean: 12 patients", "pgd ε 0.01: 12 patients"]
    assert [row[0] for row in tables.rows] == ["one", "one", "two", "two"], "an ensemble has no patient model"
    path = folder / "data" / "transfer" / "patients" / "one-clean.parquet"
    table = pd.read_parquet(path)
    table.attrs[MADE_ON]["weights"] = "0" * 64
    write_table(path, table)
    write_record(folder / "metrics" / "patients" / "two-adv.json", {"not_fitted": "no patient has two images"})
    run = read(folder)
    tables = discrimination_table(run, 0.95, "patient")
    assert [row[:2] for row in tables.rows] == [["one", "clean"], ["one", "adversarial"], ["two", "clean"]]
    assert tables.rows[0][3] == NONE
    assert run.foreign[str(path)] == "it was made on weights other than this model's"


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
