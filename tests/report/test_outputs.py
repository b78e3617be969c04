"""Outputs beside the page: tables for `dvc plots`, LaTeX, the sheet of classes."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from medrobust.core.records import read_json
from medrobust.data.store import ImageStore
from medrobust.report.figures.contact_sheet import sheet_rows
from medrobust.report.page.latex import escape, file_name, latex
from medrobust.report.page.write import write_report
from medrobust.report.tables.plot_tables import plot_tables
from medrobust.report.tables.table import Table
from tests.report.runs import SETTINGS, crossings, folders, outputs, read

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_stage_writes_every_view(folder: Path) -> None:
    written = outputs(folder)
    write_report(read(folder), SETTINGS, written, folders(folder), pictures=True)
    names = {path.name for path in (written.page / "tables").iterdir()}
    assert {"clean-images.tex", "attack-suite-pgd.tex", "one-all-results.tex"} <= names
    assert file_name(Table("One: all results", [], [])) == "one-all-results"
    assert all(path.is_file() for path in written.tables.values())
    assert (written.page / "pictures" / "classes.png").is_file()
    shown, vectors = ({path.stem for path in part.iterdir()} for part in (written.figures, written.vectors))
    assert shown == vectors
    assert {path.suffix for path in written.figures.iterdir()} == {".png"}, "dvc plots shows each figure once"
    page = (written.page / "index.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "nearest" in page


def test_no_image_is_shown_where_a_licence_forbids_it(folder: Path) -> None:
    write_report(read(folder), SETTINGS, outputs(folder), folders(folder), pictures=False)
    assert not (folder / "out" / "page" / "pictures").exists()
    assert "<img" not in (folder / "out" / "page" / "index.html").read_text()


def test_plot_tables_have_the_columns_that_the_templates_read(folder: Path) -> None:
    tables = plot_tables(read(folder))
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    seen = set()
    for plot in plots:
        (path, props) = next(iter(plot.items()))
        if "template" not in props:
            continue
        table = tables[Path(path).stem]
        template = (ROOT / ".dvc" / "plots" / f"{props['template']}.json").read_text()
        fields = set(re.findall(r'"field": "(\w+)"', template)) | {props["x"], props["y"]}
        assert fields - {"rev"} <= set(table.columns)
        assert len(table)
        seen.add(Path(path).stem)
    assert seen == set(tables)


def test_the_curves_of_dvc_plots_end_with_the_constant_answer(folder: Path) -> None:
    run = read(folder)
    table = plot_tables(run)["robust_accuracy"]
    constant = table[table["model"] == "constant answer"]
    assert constant["eps"].tolist() == sorted({*table["eps"]})
    assert set(constant["accuracy"]) == {run.constant_answer()}
    run.split.clear()
    assert "constant answer" not in set(plot_tables(run)["robust_accuracy"]["model"]), "unknown"


def test_the_transfer_matrix_has_the_columns_that_its_template_reads() -> None:
    (plot,) = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["transfer"]["plots"]
    (props,) = plot.values()
    template = (ROOT / ".dvc" / "plots" / f"{props['template']}.json").read_text()
    fields = set(re.findall(r'"field": "(\w+)"', template))
    assert {props["x"], props["y"]} < fields
    assert fields - {"rev"} <= set(crossings().columns)


def test_shares_of_a_confusion_matrix_add_up(folder: Path) -> None:
    table = plot_tables(read(folder))["confusion"]
    sums = table.groupby(["model", "actual"])["share"].sum()
    assert sums.to_numpy() == pytest.approx(1)


def test_latex_rows_have_one_cell_per_column_and_no_raw_sign() -> None:
    text = latex(Table("a title", ["ε_x", "n"], [["some % & more", "1"], ["[0.1]", "–"]], "a note"))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1, 1]
    assert r"$\varepsilon$\_x & n" in text
    assert r"some \% \& more & 1" in text
    assert "{[0.1]} & --" in text
    assert r"\begin{tabular}{lr}" in text


def test_a_backslash_is_escaped_once() -> None:
    assert escape("\\_") == r"\textbackslash{}\_"


def test_the_sheet_shows_middle_slices_of_different_real_patients() -> None:
    rows = [("Mild", f"p{p}", s, "real") for p in range(5) for s in (3, 1, 2)]
    rows += [("Mild", "p0", 1, "synthetic"), ("Severe", "", 1, "synthetic"), ("Severe", "", 2, "synthetic")]
    manifest = pd.DataFrame(rows, columns=["label", "patient", "slice", "kind"])
    manifest["id"] = [f"i{number}" for number in range(len(manifest))]
    chosen = sheet_rows(manifest, 3)
    assert manifest.loc[chosen["Mild"], "patient"].tolist() == ["p0", "p2", "p4"]
    assert manifest.loc[chosen["Mild"], "slice"].tolist() == [2, 2, 2]
    assert len(chosen["Severe"]) == 2


def test_the_sheet_takes_the_header_of_the_store(folder: Path) -> None:
    store = ImageStore.open(folder / "data" / "prepared")
    assert {len(rows) for rows in sheet_rows(store.manifest, 9).values()} == {2}
    assert read_json(folder / "data" / "prepared" / "header.json")["counts"]["Mild"] == 4
