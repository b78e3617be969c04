"""The items of reporting guidelines, each filled by records of the run, from the author's text, or missing.

An item that asks for several things has parts, each with its own records, so that no item counts as filled that is
answered in part.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from medrobust.core.errors import UserError
from medrobust.core.params.study import StudyParams
from medrobust.core.text import one_line
from medrobust.report.run import Run
from medrobust.report.tables.constant import CONSTANT
from medrobust.report.tables.table import NONE, Table

#: Files of this folder, in the order of the page.
GUIDELINES = ("claim", "tripod_ai", "ai_act")
FILLED, PARTLY, AUTHOR, MISSING = "filled", "filled in part", "from the author's text", "missing"
#: Cells of tables that hold no result.
NOTHING = (NONE, "", "missing", "unchecked")
#: A section of the page in a place.
LINK = re.compile(r"\(#([a-z]+)\)")
#: Characters of a hash that are shown, and of a value of header.json.
SHORT, LONG = 12, 100
#: Sections of the page that are not among those with content.
ALWAYS = ("verdicts", "reproduce")


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
    """One item: what it asks for, whether this run fills it, where, and what is missing."""

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

    A part with rules is filled if every rule finds its record; otherwise it is from the author's text if `study`
    has some for it, and else missing. An item is filled if all its parts are, and missing if all of them are.
    `parts` are the sections of the page that have content.

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
    name, asked = f"{guideline} {item['number']}", item.get("parts", [item])
    told, authored, missing = [], [], []
    for part in asked:
        words = f"{part['asks']}: " if "parts" in item else ""
        where, lacking = _look(part.get("records", []), run, parts)
        key = part.get("study")
        if where and not lacking:
            told.append(words + where)
        elif key and (own := getattr(study, key)):
            authored.append(words + own)
        elif lacking:
            missing.append(f"{words}this run has no {', no '.join(map(_in_words, lacking))}")
        else:
            missing.append(words + (f"study.{key}" if key else f"study.items: {name}"))
    if text := study.items.get(name):  # it stands for all that nothing else fills
        authored, missing = [*authored, text], []
    if not missing:
        status = FILLED if len(told) == len(asked) else AUTHOR
    elif told or authored:
        status, missing = PARTLY, [f"missing: {each}" for each in missing]
    else:
        status = MISSING
    return Finding(name, item["asks"], status, "; ".join([*told, *authored, *missing]))


def _look(rules: Sequence[str], run: Run, parts: Sequence[Part]) -> tuple[str, list[str]]:
    """Where the records of some rules are, and the rules of which this run has none."""
    found = {rule: place(rule, run, parts) for rule in rules}
    # Several rules may lead to the same place.
    where = dict.fromkeys(each for each in found.values() if each)
    return "; ".join(where), [rule for rule, each in found.items() if not each]


def place(rule: str, run: Run, parts: Sequence[Part]) -> str | None:
    """Where the record of a rule is: a section, a table, a field, a hash; None if this run has none.

    A place that is not on the page counts as none.
    """
    kind, _, value = rule.partition(":")
    finders: dict[str, Callable[[], str | None]] = {
        "section": lambda: _section(parts, value),
        "table": lambda: _table(parts, *value.split("/", 1)),
        "header": lambda: _header(value, run),
        "audit": lambda: _if(run.audit, f"audit of the split: {run.audit.get('verdict')} (#verdicts)"),
        "param": lambda: _if(run.split, f"params.yaml: {value} (#data)"),
        "card": lambda: _card(value, run),
        "hash": lambda: _hash(value, run),
        "versions": lambda: _if(run.versions, "versions of packages (#reproduce)"),
    }
    where = finders[kind]()
    known = {*ALWAYS, *(part.name for part in parts)}
    return where if where and known.issuperset(LINK.findall(where)) else None


def _if(known: object, where: str) -> str | None:
    return where if known else None


def _header(name: str, run: Run) -> str | None:
    """A value of header.json; of a list, which may hold ids, the length alone."""
    value = run.header.get(name)
    if value in (None, ""):
        return None
    if isinstance(value, dict):
        value = ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
    text = f"{len(value)} images" if isinstance(value, list) else one_line(str(value)).replace("(#", "( #")
    return f"{name}: {text if len(text) <= LONG else f'{text[:LONG]}…'} (#data)"


def _section(parts: Sequence[Part], name: str) -> str | None:
    found = (part for part in parts if part.name == name and (part.drawn or any(map(_told, part.filled))))
    return next((f"{part.title} (#{name})" for part in found), None)


def _table(parts: Sequence[Part], name: str, title: str) -> str | None:
    tables = (table for part in parts if part.name == name for table in part.filled)
    found = (table for table in tables if table.title.startswith(title) and _told(table))
    return next((f"{table.title} (#{name})" for table in found), None)


def _told(table: Table) -> bool:
    """Whether a table holds more than names, missing results, and what a constant answer would reach."""
    return any(cell not in NOTHING for row in table.rows if row[0] != CONSTANT for cell in row[2:])


def _card(value: str, run: Run) -> str | None:
    cards = run.training.cards.values()
    every = cards and all(value in {*card, *card.get("params", {})} for card in cards)
    return _if(every, f"{value} in card.json of {len(cards)} models, data/checkpoints (#reproduce)")


def _hash(value: str, run: Run) -> str | None:
    cards = run.training.cards
    return {
        "data": _if(run.hashes.data, f"prepared data: sha256 {str(run.hashes.data)[:SHORT]}… (#reproduce)"),
        "code": _if(run.code, f"code: md5 {str(run.code)[:SHORT]}… (#reproduce)"),
        "models": _if(
            cards and all(cards.values()),
            f"weights of {len(cards)} models: sha256 in card.json, data/checkpoints (#reproduce)",
        ),
    }[value]


def _in_words(rule: str) -> str:
    kind, _, value = rule.partition(":")
    return f"{kind} {value.rpartition('/')[2]}".rstrip()
