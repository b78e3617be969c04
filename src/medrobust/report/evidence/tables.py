"""The evidence as tables of the page, and as report/evidence.md."""

import re
from collections import Counter
from collections.abc import Mapping

from medrobust.core.text import markdown
from medrobust.report.evidence.items import AUTHOR, FILLED, MISSING, PARTLY, Finding, read_guidelines
from medrobust.report.tables.table import Table

#: A section of the page in a cell.
PLACE = re.compile(r"\(#(?:<!-- -->)?([a-z]+)\)")  # in Markdown, `#` is escaped
INTRODUCTION = (
    "Each item of these documents is filled by records of this run, from the author's text (study in params.yaml) "
    "or missing. An item that asks for several things names each, and is filled in part where one of them is "
    "missing. Filled says where the answer is, not that it is good enough: whether a study meets a guideline or a "
    "law is for authors, reviewers and authorities to decide."
)


def evidence_tables(found: Mapping[str, list[Finding]]) -> list[Table]:
    """One table per guideline."""
    sources = {guideline.title: guideline.source for guideline in read_guidelines()}
    return [
        Table(
            title, ["item", "asks for", "status", "where, or what is missing"],
            [[finding.item, finding.asks, finding.status, finding.where] for finding in findings],
            f"Items in our words, with the numbers of {sources[title]}.", folded=True, places=True,
        )
        for title, findings in found.items()
    ]  # fmt: skip


def evidence_text(found: Mapping[str, list[Finding]]) -> list[str]:
    """What the tables are, and how many items of each guideline are filled."""
    return [INTRODUCTION, *(f"{title}: {counts(findings)}." for title, findings in found.items())]


def counts(findings: list[Finding]) -> str:
    """`30 of 44 items filled, 3 filled in part, 2 from the author's text, 9 missing`."""
    number = Counter(finding.status for finding in findings)
    others = ", ".join(f"{number[status]} {status}" for status in (PARTLY, AUTHOR, MISSING))
    return f"{number[FILLED]} of {len(findings)} items {FILLED}, {others}"


def evidence_markdown(title: str, found: Mapping[str, list[Finding]]) -> str:
    """The file report/evidence.md, with links to the page beside it."""
    lines = [f"# {markdown(title)}: evidence", "", INTRODUCTION, ""]
    for table, findings in zip(evidence_tables(found), found.values(), strict=True):
        body = PLACE.sub(r"([\1](index.html#\1))", table.body())
        lines += [f"## {markdown(table.title)}", "", f"{counts(findings)}.", "", body]
    return "\n".join(lines).rstrip("\n") + "\n"
