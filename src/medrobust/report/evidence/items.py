"""The items of reporting guidelines, each filled by records of the run, from the author's text, or missing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from medrobust.core.errors import UserError
from medrobust.core.params.study import StudyParams
from medrobust.report.run import Run
from medrobust.report.tables.table import NONE, Table

#: Files of this folder, in the order of the page.
GUIDELINES = ("claim", "tripod_ai", "ai_act")
FILLED, AUTHOR, MISSING = "filled", "from the author's text", "missing"
#: Cells of tables that hold no result.
NOTHING = (NONE, "", "missing", "unchecked")
#: Characters of a hash that are shown.
SHORT = 12


class Part(Protocol):
    """What the rules need of a section of the page."""

    @property
    def name(self) -> str:
        """In links."""

    @property
    def title(self) -> str:
        """Of the section."""

    @property
    def filled(self) -> list[Table]:
        """The tables that have rows."""

    @property
    def drawn(self) -> bool:
        """Whether it has charts or matrices."""


@dataclass(frozen=True)
class Guideline:
    """A reporting guideline; the items are in its JSON file, in our words."""

    name: str
    title: str
    source: str
    items: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Finding:
    """One item: what it asks for, whether this run fills it, and where (or what is missing)."""

    item: str  # name of guideline and number
    asks: str
    status: str
    where: str  # `(#name)` stands for a section of the page


def read_guidelines() -> list[Guideline]:
    """All guidelines of this folder."""
    folder = files("medrobust.report.evidence")
    contents = (json.loads(folder.joinpath(f"{name}.json").read_text(encoding="utf-8")) for name in GUIDELINES)
    return [Guideline(c["name"], c["title"], c["source"], tuple(c["items"])) for c in contents]


def find_evidence(run: Run, parts: Sequence[Part], study: StudyParams) -> dict[str, list[Finding]]:
    """Title of each guideline -> its items.

    An item with rules is filled if every rule finds its record. Otherwise it is from the author's text if `study`
    has some for it. `parts` are the sections of the page that have content.

    Raises:
        UserError: `study.items` names an item that no guideline has.
    """
    guidelines = read_guidelines()
    known = {f"{guideline.name} {item['number']}" for guideline in guidelines for item in guideline.items}
    if unknown := [name for name in study.items if name not in known]:
        raise UserError(
            "params.yaml: study.items", f"there is no item {unknown[0]!r}",
            "Use the names of report/evidence.md, for example 'CLAIM 13'",
        )  # fmt: skip
    return {
        guideline.title: [_find(run, parts, study, guideline.name, item) for item in guideline.items]
        for guideline in guidelines
    }


def _find(run: Run, parts: Sequence[Part], study: StudyParams, guideline: str, item: dict[str, Any]) -> Finding:
    name, key = f"{guideline} {item['number']}", item.get("study")
    texts = [text for text in (getattr(study, key) if key else None, study.items.get(name)) if text]
    found = {rule: place(rule, run, parts) for rule in item.get("records", [])}
    lacking = [rule for rule, where in found.items() if not where]
    if found and not lacking:
        # Several rules may lead to the same place.
        places = dict.fromkeys(where for where in found.values() if where)
        return Finding(name, item["asks"], FILLED, "; ".join([*places, *texts]))
    if texts:
        return Finding(name, item["asks"], AUTHOR, " ".join(texts))
    if lacking:
        return Finding(name, item["asks"], MISSING, f"this run has no {', no '.join(map(_in_words, lacking))}")
    return Finding(name, item["asks"], MISSING, f"study.{key}" if key else f"study.items: {name}")


def place(rule: str, run: Run, parts: Sequence[Part]) -> str | None:
    """Where the record of a rule is: a section, a table, a field, a hash; None if this run has none."""
    kind, _, value = rule.partition(":")
    finders: dict[str, Callable[[], str | None]] = {
        "section": lambda: _section(parts, value),
        "table": lambda: _table(parts, *value.split("/", 1)),
        "header": lambda: _if(run.header.get(value) not in (None, ""), f"header.json: {value} (#data)"),
        "audit": lambda: _if(run.audit, f"audit of the split: {run.audit.get('verdict')} (#verdicts)"),
        "param": lambda: _if(run.split, f"params.yaml: {value} (#data)"),
        "card": lambda: _card(value, run),
        "hash": lambda: _hash(value, run),
        "versions": lambda: _if(run.versions, "versions of packages (#reproduce)"),
    }
    return finders[kind]()


def _if(known: object, where: str) -> str | None:
    return where if known else None


def _section(parts: Sequence[Part], name: str) -> str | None:
    found = (part for part in parts if part.name == name and (part.drawn or any(map(_told, part.filled))))
    return next((f"{part.title} (#{name})" for part in found), None)


def _table(parts: Sequence[Part], name: str, title: str) -> str | None:
    tables = (table for part in parts if part.name == name for table in part.filled)
    found = (table for table in tables if table.title.startswith(title) and _told(table))
    return next((f"{table.title} (#{name})" for table in found), None)


def _told(table: Table) -> bool:
    """Whether a table holds more than names and missing results."""
    return any(cell not in NOTHING for row in table.rows for cell in row[2:])


def _card(value: str, run: Run) -> str | None:
    cards = [card for card in run.training.cards.values() if value in {*card, *card.get("params", {})}]
    return _if(cards, f"card.json of {len(cards)} models: {value} (#training)")


def _hash(value: str, run: Run) -> str | None:
    cards = run.training.cards
    return {
        "data": _if(run.hashes.data, f"prepared data: sha256 {str(run.hashes.data)[:SHORT]}… (#reproduce)"),
        "code": _if(run.code, f"code: md5 {str(run.code)[:SHORT]}… (#reproduce)"),
        "models": _if(cards and all(cards.values()), f"weights of {len(cards)} models: models/*/*/README.md"),
    }[value]


def _in_words(rule: str) -> str:
    kind, _, value = rule.partition(":")
    return f"{kind} {value.rpartition('/')[2]}".rstrip()
