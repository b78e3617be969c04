"""Jinja's settings for the page, the Markdown report, the texts of sections and the model cards."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


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
