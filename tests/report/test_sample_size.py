"""The page says what the test set can tell, first in one line and then in a table."""

from pathlib import Path

import pytest

from medrobust.core.rates import PatientCounts
from medrobust.core.sample_size import balanced_half_width, clustering, half_width, patients_needed
from medrobust.report.answers import right_clean
from medrobust.report.page.render import page_content, render_html
from medrobust.report.run import Run
from medrobust.report.sample_size import plan_sample
from medrobust.report.tables.sample_size import sample_size_table
from medrobust.report.tables.summary_lines import summary_lines
from tests.report.runs import SETTINGS, predictions, read


def test_the_plan_is_that_of_the_answers_of_all_models(folder: Path) -> None:
    sample = read(folder).sample
    assert sample is not None
    assert (sample.images, sample.patients) == (24, 12)
    assert set(sample.by_class.values()) == {4}
    counts = []
    for number in range(5):
        test = right_clean(predictions(number))
        right, labels, patients = (test[name].to_numpy() for name in ("right", "label", "patient"))
        counts.append(PatientCounts.of(right, labels, patients, 3))
    assert sample.cluster == clustering(counts)
    assert sample.half_width == balanced_half_width(sample.rate, [4, 4, 4], sample.cluster, 0.95)


def test_the_first_screen_says_it_in_one_line(folder: Path) -> None:
    run = read(folder)
    assert run.sample is not None
    line = summary_lines(run, "patient")[-1]
    assert line.startswith("The 24 test images count as ")
    assert f"A balanced accuracy of {run.sample.rate:.2f} is known to ±{run.sample.half_width:.2f};" in line
    assert line.endswith(f"shows from about {run.sample.difference:.2f} on.")
    html = render_html(page_content(run, SETTINGS), {})
    assert html.index(line) < html.index('id="verdicts"')


def test_the_table_tells_how_many_patients_a_wish_needs(folder: Path) -> None:
    run = read(folder)
    assert run.sample is not None
    table, sample = sample_size_table(run, 0.95), run.sample
    assert [row[0] for row in table.rows] == [
        "recall Non <b>",
        "recall Mild",
        "recall Severe",
        "balanced accuracy",
    ]
    assert table.rows[0][1:3] == ["4", f"±{half_width(sample.rate, 4, sample.cluster, 0.95):.3f}"]
    assert table.rows[0][3] == str(patients_needed(0.1, sample.rate, sample.cluster, 0.95))
    assert table.rows[-1][4] == str(patients_needed(0.05, sample.rate, sample.cluster, 0.95, classes=3))


def test_one_model_has_no_difference(folder: Path) -> None:
    run = read(folder)
    run.comparisons.clear()
    sample = plan_sample(run, confidence=0.95)
    assert sample is not None
    assert sample.difference is None
    run.sample = sample
    assert "two models" not in summary_lines(run, "patient")[-1]


def test_without_answers_nothing_is_said() -> None:
    run = Run([], [])
    assert plan_sample(run, confidence=0.95) is None
    assert sample_size_table(run, 0.95).rows == []


@pytest.mark.parametrize("split", ["val", "train"])
def test_predictions_without_test_images_give_no_plan(split: str) -> None:
    run = Run(["one"], [], header={"classes": ["a", "b", "c"]})
    run.answers.predictions["one", "adv"] = predictions(0).assign(split=split)
    assert plan_sample(run, confidence=0.95) is None
