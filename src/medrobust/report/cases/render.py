"""Render the page of single images from what the stage `cases` collected."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust.core.lineage import MADE_ON
from medrobust.data.store import read_manifest
from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.templates import environment


def read_cases(run: Run, path: Path) -> dict[str, Any]:
    """The collected cases; {} if there are none, or if they are missing or belong to another run (noted in it)."""
    reader = Reader(run)
    cases: dict[str, Any] = reader.record(path)
    expected = run.hashes.of_all_models() | {"suites": run.hashes.suites}
    return cases if cases and reader.belongs(path, cases.get(MADE_ON), expected) else {}


def case_numbers(run: Run, cases: Mapping[str, Any], manifest: Path) -> dict[str, int]:
    """Id -> number on the page, of the images that it shows; {} without the manifest, which has the ids."""
    if not Reader(run).usable(manifest):
        return {}
    ids = read_manifest(manifest)["id"]
    rows = [case["image"] for case in cases["cases"] if case["image"] < len(ids)]
    return {str(ids.iloc[row]): row for row in rows}


def render_cases(cases: Mapping[str, Any], title: str, *, linked: bool = True) -> str:
    """The self-contained page: style, script, pictures and values are part of the file.

    `linked`: with a link to the report, `index.html` in the same folder.
    """
    from markupsafe import Markup

    models = [{**model, "title": _title(model["name"])} for model in cases["models"]]
    shown = {**{key: value for key, value in cases.items() if key != MADE_ON}, "models": models}
    # "<" is escaped, so that no text of the data can end the script element.
    data = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style = _resource("medrobust.report.page", "page.css") + _resource("medrobust.report.cases", "cases.css")
    return environment("medrobust.report.cases").get_template("cases.html").render(
        title=title, linked=linked, errors=cases.get("errors", 0), cases=cases["cases"], models=models,
        suites=cases["suites"],
        data=Markup(data), style=Markup(style), script=Markup(_resource("medrobust.report.cases", "cases.js")),
    )  # fmt: skip


def _title(name: str) -> str:
    """A model's name in words: `resnet34-adv` is `resnet34, adversarial training`."""
    backbone, _, regime = name.rpartition("-")
    return f"{backbone}, {TRAINING[regime]} training" if backbone and regime in REGIMES else name


def _resource(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
