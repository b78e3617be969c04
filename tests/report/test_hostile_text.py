"""Text of others (title, classes, header, reasons) forges nothing in any view of the report or in a card."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from medrobust.core.records import read_json, write_json
from medrobust.core.text import one_line
from medrobust.report.page.latex import latex
from medrobust.report.page.write import write_report
from medrobust.report.run import Run
from medrobust.report.tables.table import Table
from tests.report import runs
from tests.report.test_cards import card_of, front, published

FORGED = "x\n\n# Forged\n\n**Audit of the split: clean**\n\n- <script>alert(1)</script> | b"
#: Class names that params.yaml allows, and one that only a damaged header holds.
CLASSES = ["$x^{$", "_a|b_ </script><script>alert(1)</script> **Audit: clean**", FORGED]
PLAIN = "plain"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Elements(HTMLParser):
    """Counts the elements of a page, and collects its attributes that run scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.scripts += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def write(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """All views of a run with this class and this text; the run."""
    monkeypatch.setattr(runs, "CLASSES", [name, "Mild", "Severe"])
    runs._write_results(folder)
    path = folder / "data" / "prepared" / "header.json"
    header = read_json(path)
    header |= dict.fromkeys(("licence", "citation", "url", "verified"), text)
    header |= {"skipped": [{"id": text, "reason": text}], "left_out": {text: 3}}
    write_json(path, header)
    audit: dict[str, Any] = {"verdict": "leaking", "reasons": [f"no test image of {text}"]}
    runs.write_record(folder / "metrics" / "audit.json", audit)
    record = runs.checks_record("suspect")
    record["means"], record["remedies"] = {"restarts": text}, {"restarts": text}
    runs.write_record(folder / "metrics" / "checks" / "one-adv.json", record)
    run = runs.read(folder)
    write_report(
        run, replace(runs.SETTINGS, title=text), runs.outputs(folder), runs.folders(folder), pictures=True
    )
    return run


def blocks(text: str) -> list[str]:
    """Every element of a Markdown text, in order, without those that emphasis may split text into."""
    tokens = [token for block in MARKDOWN.parse(text) for token in (block, *(block.children or []))]
    return [token.type for token in tokens if token.type != "text" and token.content != "<!-- -->"]


@pytest.mark.parametrize("name", CLASSES)
def test_no_view_has_other_elements_than_with_plain_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write(tmp_path / "plain", PLAIN, PLAIN, monkeypatch)
    hostile = write(tmp_path / "hostile", name, FORGED, monkeypatch)
    wanted, got = (tmp_path / folder / "out" / "page" for folder in ("plain", "hostile"))

    results = [(page / "results.md").read_text() for page in (wanted, got)]
    assert blocks(results[1]) == blocks(results[0])
    assert blocks(results[0]).count("table_open") == results[0].count("\n### ")
    verdicts = [re.findall(r"^\*\*.+: .+\*\*$", text, flags=re.MULTILINE) for text in results]
    assert verdicts[1] == verdicts[0]

    pages = [Elements((page / "index.html").read_text()) for page in (wanted, got)]
    breaks = [{**page.found, "wbr": 0} for page in pages]
    assert breaks[1] == breaks[0]
    assert not pages[1].scripts

    for file in sorted((wanted / "tables").iterdir()):
        lines = [(page / "tables" / file.name).read_text().splitlines() for page in (wanted, got)]
        assert len(lines[1]) == len(lines[0]), file.name
        assert [line[0] for line in lines[1]] == [line[0] for line in lines[0]], file.name
    lines = [(page / "summary.txt").read_text().splitlines() for page in (wanted, got)]
    assert len(lines[1]) == len(lines[0])

    cards = [card_of(published(run)) for run in (plain, hostile)]
    assert blocks(cards[1].split("\n---\n", 1)[1]) == blocks(cards[0].split("\n---\n", 1)[1])
    assert blocks(cards[0].split("\n---\n", 1)[1]).count("table_open") == len(
        re.findall(r"^\| --- \|", cards[0], re.M)
    )
    assert front(cards[1]).keys() == front(cards[0]).keys() - {"license"} | {"license"} & front(cards[1]).keys()
    assert one_line(name) in text_of(got / "index.html")
    assert name.split(maxsplit=1)[0] in text_of(tmp_path / "hostile" / "out" / "vectors" / "confusion.svg")


def text_of(page: Path) -> str:
    """The text that a browser shows."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"</?(span|wbr)[^>]*>", "", page.read_text())))


def test_latex_protects_what_would_be_an_argument_of_the_row_before() -> None:
    text = latex(Table("a\nb", ["*x", "[y", "1"], [["*x", " [y", "1"]], "c\n\\input{d}"))
    assert text.splitlines()[:2] == ["% a b", "% c \\input{d}"]
    assert "{*x} & {[y} & 1 \\\\" in text


def test_a_table_is_a_table_of_its_cells() -> None:
    table = Table("Title", ["model", "a|b"], [["-", "-0.123"], ["+ x", "# y"]], "- no list")
    assert table.body().splitlines()[1] == "| --- | --- |"
    found = [token.content for token in MARKDOWN.parse(table.markdown()) if token.type == "inline"]
    shown = [re.sub(r"\\(.)", r"\1", content) for content in found]
    assert shown == ["Title", "model", "a|b", "-", "-0.123", "+ x", "# y", "- no list"]
