"""Jinja's settings for the page, the Markdown report, the texts of sections and tables, and the model cards.

Values are escaped here, where they are written, and nowhere before.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from medrobust.core.text import markdown, one_line

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(package: str) -> "Environment":
    """The templates in the folder of a package, which show every value as plain text on one line.

    Templates of HTML (.html) and of Markdown (.md.jinja) also escape it. The filter `safe` is for values that are
    markup on purpose.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader(package, ""), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, finalize=_as_text(),
    )  # fmt: skip
    templates.filters["percent"] = "{:.0%}".format
    return templates


def _as_text() -> Any:
    """What Jinja does to the value of an expression before it writes it."""
    from jinja2 import pass_context
    from markupsafe import Markup

    @pass_context
    def finalize(context: Any, value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return markdown(value) if str(context.name).endswith(".md.jinja") else one_line(value)

    return finalize


def paragraphs(package: str, name: str, **values: Any) -> list[str]:
    """The paragraphs of a template, one line each; blank lines separate them."""
    text = environment(package).get_template(name).render(values)
    return [part.replace("\n", " ") for part in re.split(r"\n{2,}", text.strip()) if part]


def table_note(name: str, **values: Any) -> str:
    """The note below a table; `notes.txt.jinja` has one macro per table."""
    notes: Any = environment("medrobust.report.tables").get_template("notes.txt.jinja").module
    return str(getattr(notes, name)(**values)).strip().replace("\n", " ")
