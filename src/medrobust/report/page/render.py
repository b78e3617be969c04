"""Render the report as one HTML page and as Markdown."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from medrobust.report.page.sections import ReportSettings, sections
from medrobust.report.page.verdicts import WORDS, verdicts
from medrobust.report.run import Run
from medrobust.report.tables.explanations import explanation_captions
from medrobust.report.tables.summary_lines import summary_lines

#: Captions of pictures.
CAPTIONS = {
    "classes": "Images of each class: the middle slice of evenly spaced patients",
    "pairs": "Audit: the most similar images of different splits",
}


def render_html(run: Run, pictures: Mapping[str, Path], settings: ReportSettings) -> str:
    """The self-contained page: style, script, data and pictures are part of the file.

    Args:
        run: the results.
        pictures: name -> PNG file, for the names that sections use.
        settings: values of params.yaml.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    parts = {name: _resource(f"page.{name}") for name in ("html", "css", "js")}
    found = sections(run, settings)
    drawn = {
        "charts": {chart.name: asdict(chart) for section in found for chart in section.charts},
        "words": WORDS,
    }
    # "<" is escaped, so that no text of the data can end the script element.
    data = json.dumps(drawn, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": breakable, "mark_intervals": mark_intervals}
    return environment.from_string(parts["html"]).render(
        title=settings.title, summary=summary_lines(run, settings.strategy), verdicts=verdicts(run),
        sections=found, words=WORDS, captions=CAPTIONS | explanation_captions(run), data=Markup(data),
        style=Markup(parts["css"]), script=Markup(parts["js"]),
        pictures={name: _data_uri(path) for name, path in pictures.items()},
    )  # fmt: skip


def render_markdown(run: Run, settings: ReportSettings) -> str:
    """The verdicts, and the text and tables of every section, for a pull request."""
    lines = [f"# {settings.title}", ""]
    lines += [part for line in summary_lines(run, settings.strategy) for part in (line, "")]
    for card in verdicts(run):
        reasons = [f"- {reason}" for reason in card["reasons"]]
        lines += [f"**{card['of']}: {card['verdict']}**", "", *reasons, ""]
    for section in sections(run, settings):
        filled = [table for table in section.tables if table.rows]
        if filled:
            lines += [f"## {section.title}", ""]
            lines += [part for line in section.text for part in (line, "")]
            lines += [table.markdown() for table in filled]
    return "\n".join(lines)


def breakable(name: str) -> str:
    """A class name that may break before its capitals and after its underscores, as HTML."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[a-z])(?=[A-Z])|(?<=_)", name))


def mark_intervals(cell: str) -> str:
    """A cell of a table as HTML, with its intervals marked: they do not break and look different from values."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\[-?\d[^\]]*\]", r'<span class="ci">\g<0></span>', str(escape(cell))))


def _resource(name: str) -> str:
    return files("medrobust.report.page").joinpath(name).read_text(encoding="utf-8")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
