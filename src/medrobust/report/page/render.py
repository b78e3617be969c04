"""Render the report as one HTML page and as Markdown."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust.core.text import one_line
from medrobust.report.evidence.tables import PLACE
from medrobust.report.page.sections import ReportSettings, sections
from medrobust.report.page.verdicts import WORDS, verdicts
from medrobust.report.run import Run
from medrobust.report.tables.explanations import explanation_captions
from medrobust.report.tables.summary_lines import summary_lines
from medrobust.report.templates import environment

#: Captions of pictures.
CAPTIONS = {
    "classes": "Images of each class: the middle slice of evenly spaced patients",
    "pairs": "Audit: the most similar images of different splits",
}


def page_content(run: Run, settings: ReportSettings) -> dict[str, Any]:
    """What the page and its Markdown show: title, summary, verdicts, sections, captions of pictures."""
    return {
        "title": settings.title,
        "summary": summary_lines(run, settings.strategy),
        "verdicts": verdicts(run),
        "sections": sections(run, settings),
        "captions": CAPTIONS | explanation_captions(run),
    }


def render_html(content: Mapping[str, Any], pictures: Mapping[str, Path], *, cases: int = 0) -> str:
    """The self-contained page: style, script, data and `pictures` (PNG files by name) are part of the file.

    `cases` is the number of images on cases.html, to which the page links; 0 = there is no such page.
    """
    from markupsafe import Markup

    templates = environment("medrobust.report.page")
    marks = {"mark_intervals": mark_intervals, "mark_places": mark_places, "mark_cases": mark_cases}
    templates.filters |= {"breakable": breakable, **marks}
    charts = {chart.name: asdict(chart) for section in content["sections"] for chart in section.charts}
    # "<" is escaped, so that no text of the data can end the script element.
    data = json.dumps({"charts": charts, "words": WORDS}, ensure_ascii=False, allow_nan=False).replace(
        "<", "\\u003c"
    )
    return templates.get_template("page.html").render(
        content, words=WORDS, cases=cases, data=Markup(data),
        style=Markup(_resource("page.css")), script=Markup(_resource("page.js")),
        pictures={name: _data_uri(path) for name, path in pictures.items()},
    )  # fmt: skip


def render_markdown(content: Mapping[str, Any]) -> str:
    """The verdicts, and the text and tables of every section, for a pull request."""
    template = environment("medrobust.report.page").get_template("results.md.jinja")
    return template.render(content).removesuffix("\n")


def breakable(name: str) -> str:
    """A class name that may break before its capitals and after its underscores, as HTML."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[a-z])(?=[A-Z])|(?<=_)", one_line(name)))


def mark_intervals(cell: str) -> str:
    """A cell of a table as HTML, with its intervals marked: they do not break and look different from values."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\[-?\d[^\]]*\]", r'<span class="ci">\g<0></span>', str(escape(one_line(cell)))))


def mark_places(cell: str) -> str:
    """A cell as HTML in which `(#name)` is a link to a section."""
    from markupsafe import Markup, escape

    return Markup(PLACE.sub(r'<a href="#\1">#\1</a>', str(escape(one_line(cell)))))


def mark_cases(cell: str) -> str:
    """A cell as HTML in which `image 12` is a link to this image on the page of single images."""
    from markupsafe import Markup, escape

    link = r'<a href="cases.html#image-\1">image \1</a>'
    return Markup(re.sub(r"\bimage (\d+)", link, str(escape(one_line(cell)))))


def _resource(name: str) -> str:
    return files("medrobust.report.page").joinpath(name).read_text(encoding="utf-8")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
