"""Write all files of the report stage: page, Markdown, LaTeX, figures, tables for DVC's plots."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from medrobust.core.records import atomic_dir, write_table
from medrobust.data.store import ImageStore
from medrobust.report.cases.render import case_numbers, read_cases, render_cases
from medrobust.report.collect import Folders, Reader
from medrobust.report.evidence.items import find_evidence
from medrobust.report.evidence.tables import evidence_markdown
from medrobust.report.figures.contact_sheet import class_sheet
from medrobust.report.figures.draw import draw_all, save
from medrobust.report.page.latex import file_name, latex
from medrobust.report.page.render import page_content, render_html, render_markdown
from medrobust.report.page.sections import ReportSettings
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import plain, short_table
from medrobust.report.tables.explanations import explanation_pictures
from medrobust.report.tables.plot_tables import plot_tables

#: Images of each class on the page.
SHEET = 6


@dataclass(frozen=True)
class ReportOutputs:
    """The folders that the stage writes, and by name the files of the tables for DVC's plots."""

    page: Path
    figures: Path
    vectors: Path
    tables: dict[str, Path]


def write_report(
    run: Run, settings: ReportSettings, outputs: ReportOutputs, folders: Folders, *, pictures: bool
) -> str:
    """Write everything; return the short table for the terminal.

    With `pictures` the page shows images of the data, and a second page shows single images (`folders.cases`).
    They are in the folder of the page and never among the figures, which git tracks.
    """
    short = plain(short_table(run))
    with (
        atomic_dir(outputs.figures) as folder,
        atomic_dir(outputs.vectors) as vectors,
        atomic_dir(outputs.page) as page,
    ):
        shown = draw_all(run, folder, settings.norms) | explanation_pictures(run, folders.plots)
        if pictures:
            shown |= _data_pictures(run, folders, page / "pictures")
        # `dvc plots` shows every picture of its folder: SVG files there would show each figure twice.
        for vector in folder.glob("*.svg"):
            shutil.move(vector, vectors / vector.name)
        cases = read_cases(run, folders.cases) if folders.cases and pictures else {}
        if cases:
            (page / "cases.html").write_text(render_cases(cases, settings.title), encoding="utf-8")
            run.cases.update(case_numbers(run, cases, folders.prepared / "manifest.csv"))
        content = page_content(run, settings)
        html = render_html(content, shown, cases=len(cases.get("cases", [])))
        (page / "index.html").write_text(html, encoding="utf-8")
        (page / "results.md").write_text(render_markdown(content), encoding="utf-8")
        evidence = find_evidence(run, content["sections"], settings.study)
        (page / "evidence.md").write_text(evidence_markdown(settings.title, evidence), encoding="utf-8")
        (page / "summary.txt").write_text(short + "\n", encoding="utf-8")
        (page / "tables").mkdir()
        tables = (table for section in content["sections"] for table in section.filled)
        for table in tables:
            (page / "tables" / f"{file_name(table)}.tex").write_text(latex(table), encoding="utf-8")
    points = plot_tables(run)
    for name, path in outputs.tables.items():
        write_table(path, points[name])
    return short


def _data_pictures(run: Run, folders: Folders, out: Path) -> dict[str, Path]:
    """Pictures with images of the data: some of each class, and the nearest pairs that the audit found."""
    pictures = {}
    if run.header and (folders.prepared / "images.npy").is_file():
        out.mkdir()
        pictures["classes"] = save(class_sheet(ImageStore.open(folders.prepared), SHEET), out, "classes")
    if folders.audit and (pairs := folders.audit / "pairs.png").is_file() and Reader(run).usable(pairs):
        pictures["pairs"] = pairs
    return pictures
