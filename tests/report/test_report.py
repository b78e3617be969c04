"""The page shows what is there, lists what is missing, and needs no network."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from medrobust.core.records import read_json, read_metrics, write_json, write_table
from medrobust.core.versions import installed
from medrobust.report.charts.confusion import matrices
from medrobust.report.charts.robustness import robust_curve
from medrobust.report.figures.draw import confusion, draw_all
from medrobust.report.page.render import breakable, mark_intervals, page_content, render_html, render_markdown
from medrobust.report.page.verdicts import verdicts
from medrobust.report.page.write import write_report
from medrobust.report.provenance import folder_md5
from medrobust.report.tables import accuracy as tables
from medrobust.report.tables.calibration import recall_table
from medrobust.report.tables.checklist import checks_table, verdicts_table
from medrobust.report.tables.data import split_table
from medrobust.report.tables.table import NONE, Table, ranged, zero_width_warning
from tests.report.runs import (
    CLASSES,
    SETTINGS,
    attack_record,
    checks_record,
    curve,
    folders,
    outputs,
    predictions,
    read,
    text_of,
    write_record,
)


def page(folder: Path) -> str:
    return render_html(page_content(read(folder), SETTINGS), {})


def chart_data(html: str) -> Any:
    found = re.search(r'id="chart-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_whole_run_lacks_nothing_and_opens_with_its_verdicts(folder: Path) -> None:
    html = text_of(page(folder))
    assert read(folder).missing == []
    positions = [
        html.index(f'id="{name}"') for name in ("verdicts", "glance", "data", "tuning", "attacks", "reproduce")
    ]
    assert positions == sorted(positions)
    assert html.index("leaking") < html.index('id="glance"')
    assert "2 of 7 test patients are also in train" in html
    assert "0.712 [0.500, 0.900]" in html
    assert "0.250 [0.200, 0.300]" in html


def test_the_page_names_nothing_outside_itself_and_its_ids_are_unique(folder: Path) -> None:
    html = page(folder)
    assert not re.search(r"<(link|img|iframe|script)\b[^>]*(src|href)=[\"'](?!data:)", html)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert {name for name in ids if ids.count(name) > 1} == set()
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_text_of_the_data_is_escaped_also_inside_the_script(folder: Path) -> None:
    write_table(folder / "plots" / "tune" / "one" / "trials.csv", pd.DataFrame({"</script><b>": ["<i>"]}))
    header = read_json(folder / "data" / "prepared" / "header.json")
    write_json(folder / "data" / "prepared" / "header.json", {**header, "citation": "<img src=x onerror=y>"})
    html = page(folder)
    assert "Non <b>" not in html
    assert "Non &lt;b&gt;" in html
    assert "<img" not in html
    assert html.count("</script>") == 2


def test_what_is_missing_is_named_and_never_filled_in(folder: Path) -> None:
    (folder / "metrics" / "attack" / "two-adv-pgd.json").unlink()
    (folder / "metrics" / "train" / "one-clean.json").unlink()
    run = read(folder)
    assert len(run.missing) == 2
    html = page(folder)
    assert "two-adv-pgd.json" in html
    rows = {tuple(row[:2]): row for row in tables.attack_table(run, "pgd", 0.95).rows}
    assert rows["two", "adversarial"][2] == "missing"
    clean = {tuple(row[:2]): row for row in tables.clean_table(run, 0.95).rows}
    assert set(clean["one", "clean"][2:]) == {NONE}
    assert len(chart_data(html)["charts"]["curve-pgd"]["series"]) == 4


def test_an_empty_run_still_gives_a_page(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "Missing results" in html
    assert chart_data(html)["charts"] == {}
    assert write_report(read(tmp_path), SETTINGS, outputs(tmp_path), folders(tmp_path), pictures=True)
    assert (tmp_path / "out" / "page" / "results.md").read_text().startswith("# a title")


def test_a_suite_that_never_ran_is_missing_everywhere(folder: Path) -> None:
    shutil.rmtree(folder / "metrics" / "attack")
    shutil.rmtree(folder / "metrics" / "checks")
    shutil.rmtree(folder / "plots")
    run = read(folder)
    assert run.worst_verdict() == "missing"
    assert {row[-1] for row in tables.short_table(run).rows[:-1]} == {"missing"}
    assert robust_curve(run, "pgd", "Linf") is None
    assert write_report(run, SETTINGS, outputs(folder), folders(folder), pictures=True)


def test_one_backbone_is_enough(folder: Path) -> None:
    run = read(folder, backbones=("one",))
    assert [row[0] for row in tables.short_table(run).rows] == ["one", "one", "ensemble", "constant answer"]
    assert 'id="attacks"' in render_html(page_content(run, SETTINGS), {})
    assert len(confusion(run).axes) == 4
    assert {row[0] for row in tables.clean_table(run, 0.95).rows} == {"one", "ensemble"}


def test_two_classes_have_no_weighted_kappa(folder: Path) -> None:
    assert "kappa²" in tables.clean_table(read(folder), 0.95).columns
    header = read_json(folder / "data" / "prepared" / "header.json")
    write_json(folder / "data" / "prepared" / "header.json", {**header, "classes": CLASSES[:2]})
    run = read(folder)
    assert "kappa²" not in tables.clean_table(run, 0.95).columns
    widths = {len(row) for row in tables.backbone_table(run, "one", 0.95).rows}
    assert widths == {len(tables.backbone_table(run, "one", 0.95).columns)}


def test_a_class_absent_from_test_is_named(folder: Path) -> None:
    split = read_metrics(folder / "metrics" / "split.json")
    split["test"]["Severe"] = 0
    write_record(folder / "metrics" / "split.json", split)
    assert "No test image of Severe" in page(folder)


def test_a_class_that_merging_emptied_has_no_column(folder: Path) -> None:
    split = {name: {**part, "Severe": 0} for name, part in read_metrics(folder / "metrics" / "split.json").items()}
    write_record(folder / "metrics" / "split.json", split)
    assert recall_table(read(folder), 0.95).columns[3:] == ["Non <b> (2 patients)", "Mild (3 patients)"]


def test_all_results_of_a_backbone_are_in_one_table(folder: Path) -> None:
    table = tables.backbone_table(read(folder), "one", 0.95)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert rows.pop()["training"] == "constant answer"
    assert [(row["training"], row["images"], row["ε"]) for row in rows] == [
        (training, *images)
        for training in ("clean", "adversarial")
        for images in (("clean", "–"), ("pgd", "0.005"), ("pgd", "0.01"), ("pgd, all steps", "0.01"))
    ]
    attacked = rows[2]
    assert attacked["accuracy"] == "0.250 [0.200, 0.300]"
    assert attacked["balanced accuracy"] == "0.200 [0.100, 0.300]"
    assert (attacked["n"], attacked["patients"]) == ("30", "10")
    assert attacked["macro F1"] == NONE, "it depends on which wrong class the suite happened to find"
    assert (attacked["recall Mild"], attacked["recall Severe"]) == ("0.000 [0.000, 0.000]", NONE)
    assert rows[0]["ECE (calibrated: mean, upper)"] == "0.100 (0.080, 0.150)"
    assert (rows[0]["calibration slope"], rows[0]["calibration intercept"]) == ("0.800 [0.500, 1.100]", NONE)
    assert "no evidence of miscalibration" in table.note
    assert (rows[0]["macro F1"], rows[0]["recall Mild"]) == ("0.500 [0.500, 0.900]", "0.500")


def test_the_worst_verdict_is_the_runs(folder: Path) -> None:
    assert read(folder).worst_verdict() == "no problem found"
    write_record(folder / "metrics" / "checks" / "one-adv.json", checks_record("suspect"))
    assert read(folder).worst_verdict() == "suspect"
    (folder / "metrics" / "checks" / "one-clean.json").unlink()
    assert read(folder).worst_verdict() == "unchecked"
    write_record(folder / "metrics" / "checks" / "two-adv.json", checks_record("invalid"))
    assert read(folder).worst_verdict() == "invalid"
    assert [card["tone"] for card in verdicts(read(folder))][:2] == ["bad", "bad"]


def test_the_checklist_lists_what_did_not_pass_and_what_that_means(folder: Path) -> None:
    assert checks_table(read(folder)).rows == []
    write_record(folder / "metrics" / "checks" / "one-adv.json", checks_record("suspect"))
    run = read(folder)
    row = ["one", "adversarial", "pgd", "restarts", "warn", "fools 3 of 12 images", "one start decides"]
    row += ["raise restarts"]
    assert checks_table(run).rows == [row]
    assert "at most 13 images" in checks_table(run).note
    assert "fewer than 21% of the images that the suite did not fool" in checks_table(run).note
    assert verdicts_table(run).rows[1] == ["one", "adversarial", "suspect"]
    assert "did not pass everywhere: restarts" in render_html(page_content(run, SETTINGS), {})


def test_the_slider_has_every_radius_and_the_models_at_it(folder: Path) -> None:
    chart = robust_curve(read(folder), "pgd", "Linf")
    assert chart is not None
    assert chart.rows is not None
    assert list(chart.rows) == ["0", "0.005", "0.01"]
    row = dict(zip(chart.columns, chart.rows["0.01"][0], strict=True))
    assert row["accuracy"] == "0.250 [0.200, 0.300]"
    assert row["relative to clean"] == "36%"
    assert chart.series[0]["points"][0] == [0.0, 0.7, 0.5, 0.9]


def test_the_slider_finds_radii_that_no_short_decimal_is(folder: Path) -> None:
    """8/255 is accepted as a radius; a record has six of its digits, a curve all."""
    radii = [2 / 255, 4 / 255]
    path = folder / "metrics" / "attack" / "one-adv-pgd.json"
    keyed = {
        name: dict(zip((f"{radius:g}" for radius in radii), values.values(), strict=True))
        for name, values in attack_record().items()
        if isinstance(values, dict)
    }
    write_record(path, attack_record() | keyed)
    write_table(folder / "plots" / "attack" / "one-adv-pgd.csv", curve().assign(eps=radii))
    chart = robust_curve(read(folder, backbones=("one",)), "pgd", "Linf")
    assert chart is not None
    assert chart.rows is not None
    assert set(chart.rows) >= {"0.00784314", "0.0156863"}
    row = dict(zip(chart.columns, chart.rows["0.0156863"][1], strict=True))
    assert (row["training"], row["accuracy"], row["balanced accuracy"]) == (
        "adversarial",
        "0.250 [0.200, 0.300]",
        "0.200",
    )
    assert {point[0] for line in chart.series for point in line["points"]} >= {0.0, *radii}


@pytest.mark.parametrize(("radii", "width"), [([0, 0.01, 0.2], 0.0), ([0, 0.0005, 0.2], 0.0005)])
def test_radii_over_decades_bend_the_axis(folder: Path, radii: list[float], width: float) -> None:
    values = {f"{radius:g}": 0.5 for radius in radii[1:]}
    for path in (folder / "metrics" / "attack").glob("*.json"):
        write_record(path, {**attack_record(), "robust_accuracy": values, "robust_accuracy_ci": {}})
    for path in (folder / "plots" / "attack").glob("*.csv"):
        write_table(path, pd.DataFrame({"eps": radii[1:], "robust_accuracy": 0.5, "low": 0.4, "high": 0.6}))
    chart = robust_curve(read(folder), "pgd", "Linf")
    assert chart is not None
    assert chart.bend == width


def test_markdown_tables_have_as_many_cells_as_columns(folder: Path) -> None:
    text = render_markdown(page_content(read(folder), SETTINGS))
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.strip().splitlines()}) == 1
    assert "**Audit of the split: leaking**" in text


def test_a_bar_in_a_cell_cannot_break_a_row() -> None:
    assert "| a\\|b |" in Table("t", ["c"], [["a|b"]]).markdown()


def test_confusion_matrices_carry_the_right_names_and_only_present_classes(folder: Path) -> None:
    figure = confusion(read(folder))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Non <b>", "Mild"]
    assert [text.get_text() for text in axes.texts] == ["1\n100%", "0\n0%", "1\n50%", "1\n50%"]


def test_class_names_may_be_numbers(folder: Path) -> None:
    header = read_json(folder / "data" / "prepared" / "header.json")
    write_json(folder / "data" / "prepared" / "header.json", {**header, "classes": ["10", "9"]})
    path = folder / "plots" / "train" / "one-clean" / "confusion.csv"
    path.write_text("actual,predicted\n10,9\n9,9\n9,9\n")
    first = matrices(read(folder))[0]
    assert (first.classes, first.counts) == (["10", "9"], [[0, 1], [0, 2]])


def test_the_ensemble_has_a_confusion_matrix_like_every_model(folder: Path) -> None:
    found = {matrix.title: matrix for matrix in matrices(read(folder, checked=True))}
    test = predictions(4)[lambda table: table["split"] == "test"]
    answers = np.zeros((3, 3), dtype=int)
    np.add.at(answers, (test["label"], test["pred"]), 1)
    assert list(found)[-1] == "ensemble, adversarial"
    assert found["ensemble, adversarial"].classes == CLASSES
    assert found["ensemble, adversarial"].counts == answers.tolist()
    assert confusion(read(folder)).axes[-1].get_title() == "ensemble, adversarial"
    (folder / "data" / "prepared" / "header.json").unlink()
    assert "ensemble, adversarial" not in {matrix.title for matrix in matrices(read(folder))}
    (folder / "data" / "predictions" / "ensemble.parquet").unlink()
    assert str(folder / "data" / "predictions" / "ensemble.parquet") in read(folder).missing


def test_the_same_data_give_the_same_bytes(folder: Path) -> None:
    run = read(folder)
    found = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        draw_all(run, folder / name, {"pgd": "Linf"})
        found.append({path.name: path.read_bytes() for path in (folder / name).iterdir()})
    assert set(found[0]) == {
        f"{name}.{kind}"
        for name in ("robust_accuracy_pgd", "training", "confusion", "transfer_pgd")
        for kind in ("png", "svg")
    }
    assert found[0] == found[1]


def test_the_page_names_the_run_by_the_hashes_of_code_and_data(folder: Path) -> None:
    assert "The hash of the code is unknown" in page(folder)
    (folder / "data" / "code").mkdir()
    (folder / "data" / "code" / "train").write_text("0" * 32)
    run = read(folder, checked=True)
    html = render_html(page_content(run, SETTINGS), {})
    assert run.code == folder_md5(folder / "data" / "code")
    assert f"git log --oneline -S{run.code} -- dvc.lock" in html
    assert f"Prepared data: sha256 {run.header['sha256']}." in html
    assert run.provenance is not None
    assert f"{run.provenance.md5('data/checkpoints/two/adv')}</td>" in html
    assert f"Computed with {installed()}." in html


def test_results_of_several_versions_are_told_at_the_top(folder: Path) -> None:
    assert "Versions of packages" not in page(folder)
    path = folder / "metrics" / "attack" / "two-adv-pgd.json"
    content = read_json(path)
    content["versions"] = [f"{installed()}, more 1".replace("torch 2", "torch 1")]
    write_json(path, content)
    (card,) = [card for card in verdicts(read(folder)) if card["of"] == "Versions of packages"]
    older, newer = (re.findall(r"\btorch ([^,]+)", line)[0] for line in (content["versions"][0], installed()))
    assert card["reasons"][0] == f"torch: {older} (1 files), {newer} (27 files)"
    assert len(card["reasons"]) == 2
    assert (card["verdict"], card["tone"]) == ("several", "doubt")
    assert f"torch {older}/{newer}" in page(folder)


def test_versions_that_were_installed_since_are_told(folder: Path) -> None:
    """The stage `code` notes them, and every upgrade of requirements.lock runs it and the report."""
    (folder / "data" / "code").mkdir()
    write_json(folder / "data" / "code" / "versions.json", installed().replace("numpy 2", "numpy 3"))
    (card,) = [card for card in verdicts(read(folder)) if card["of"] == "Versions of packages"]
    assert re.fullmatch(r"numpy: 2\.\S+ \(28 files\), 3\.\S+ \(1 files\)", card["reasons"][0])


def test_times_of_records_do_not_change_the_report(folder: Path) -> None:
    before = page(folder), render_markdown(page_content(read(folder), SETTINGS))
    for path in (folder / "metrics").glob("*/*.json"):
        write_record(path, {**read_metrics(path), "seconds": 98765.4})
    assert (page(folder), render_markdown(page_content(read(folder), SETTINGS))) == before


def test_long_names_break_between_words() -> None:
    assert str(breakable("VeryMild_x<y")) == "Very<wbr>Mild_<wbr>x&lt;y"


def test_an_interval_is_marked_and_nothing_else_in_brackets() -> None:
    assert (
        str(mark_intervals("0.250 [0.200, 0.300] <b>")) == '0.250 <span class="ci">[0.200, 0.300]</span> &lt;b&gt;'
    )
    assert str(mark_intervals("0.1 [-0.20, 0.30]")).endswith('<span class="ci">[-0.20, 0.30]</span>')
    assert str(mark_intervals("scan [T1, axial]")) == "scan [T1, axial]"


def test_an_interval_of_zero_width_has_a_warning(folder: Path) -> None:
    assert zero_width_warning(tables.attack_table(read(folder), "pgd", 0.95).rows) == ""
    record = {**attack_record(), "robust_accuracy": {"0.005": 0.5, "0.01": 0.0}}
    record["robust_accuracy_ci"] = {"0.005": [0.4, 0.6], "0.01": [0.0, 0.0]}
    write_record(folder / "metrics" / "attack" / "one-clean-pgd.json", record)
    run = read(folder)
    warning = zero_width_warning(tables.short_table(run).rows)
    for text in (render_html(page_content(run, SETTINGS), {}), tables.attack_table(run, "pgd", 0.95).note):
        assert warning in text


def test_the_page_warns_where_patients_are_too_few_for_its_intervals(folder: Path) -> None:
    warning = "Classes with fewer than 10 test patients"
    page = text_of(render_html(page_content(read(folder), SETTINGS), {}))
    counts = ", ".join(f"{escape(name)} {count}" for name, count in zip(CLASSES, (2, 3, 2), strict=True))
    assert f"{warning} ({counts})" in page
    split = read_metrics(folder / "metrics" / "split.json")
    split["test"]["patients_by_class"] = dict(zip(CLASSES, (10, 300, 20), strict=True))
    write_record(folder / "metrics" / "split.json", split)
    assert warning not in text_of(render_html(page_content(read(folder), SETTINGS), {}))


def test_data_without_patient_ids_have_no_warning_about_few_patients(folder: Path) -> None:
    """The split counts no patient there; an evaluation takes each image for one of its own."""
    split = read_metrics(folder / "metrics" / "split.json")
    split["test"] |= {"patients": 0, "patients_by_class": dict.fromkeys(CLASSES, 0)}
    write_record(folder / "metrics" / "split.json", split)
    header = folder / "data" / "prepared" / "header.json"
    write_json(header, {**read_json(header), "patients": 0})
    run = read(folder)
    assert run.test_patients() == min(record["patients"] for record in run.attacks.records.values()) > 0
    assert run.test_patients(CLASSES[0]) is None
    page = text_of(render_html(page_content(run, SETTINGS), {}))
    assert "Classes with fewer than" not in page
    assert "without patient ids" in page


@pytest.mark.parametrize("cell", ["0.550 [0.550, 0.550]", "0.5501 [0.550, 0.550]", "-0.100 [-0.100, -0.100]"])
def test_an_interval_of_zero_width_is_recognised_as_text(cell: str) -> None:
    assert "all resamples of these patients give the same value" in zero_width_warning([["a", cell]])
    assert zero_width_warning([["a", "0.550 [0.549, 0.550]", "0.550"]]) == ""


@given(st.floats(-1, 1), st.floats(0, 1e-2), st.floats(0, 1e-2))
def test_an_interval_never_excludes_its_value_by_rounding(value: float, below: float, above: float) -> None:
    shown, low, high = map(float, re.findall(r"-?\d\.\d+", ranged(value, value - below, value + above)))
    assert low <= shown <= high


def test_the_split_counts_patients_of_each_class(folder: Path) -> None:
    table = split_table(read(folder))
    assert table.rows[0] == ["train", "20", "7", "6 (2)", "6 (3)", "6 (2)"]
