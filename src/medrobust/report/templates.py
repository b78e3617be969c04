"""Jinja's settings for the page, the Markdown report, the texts of sections and tables, and the model cards."""

import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(package: str) -> "Environment":
    """The templates in the folder of a package; those of HTML escape the values that they show."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader(package, ""), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    templates.filters["percent"] = "{:.0%}".format
    return templates


def paragraphs(package: str, name: str, **values: Any) -> list[str]:
    """The paragraphs of a template, one line each; blank lines separate them."""
    text = environment(package).get_template(name).render(values)
    return [part.replace("\n", " ") for part in re.split(r"\n{2,}", text.strip()) if part]


def table_note(name: str, **values: Any) -> str:
    """The note below a table; `notes.txt.jinja` has one macro per table."""
    notes: Any = environment("medrobust.report.tables").get_template("notes.txt.jinja").module
    return str(getattr(notes, name)(**values)).strip().replace("\n", " ")
