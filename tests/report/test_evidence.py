"""Every rule of every guideline finds its record or says what is missing, and nothing is called a pass."""

import re
import shutil
from pathlib import Path

import pytest

from medrobust.core.errors import UserError
from medrobust.core.params.schema import check_params
from medrobust.core.params.study import StudyParams
from medrobust.report.collect import Folders, collect
from medrobust.report.evidence.items import (
    AUTHOR,
    FILLED,
    MISSING,
    PARTLY,
    Finding,
    find_evidence,
    place,
    read_guidelines,
)
from medrobust.report.evidence.tables import evidence_markdown
from medrobust.report.page.render import mark_places, page_content, render_html, render_markdown
from medrobust.report.page.sections import EMPTY, ReportSettings, sections
from medrobust.report.page.write import write_report
from medrobust.report.run import Ensemble, Patients, Run
from tests.params import preset
from tests.report.runs import SETTINGS, folders, outputs, read

ROOT = Path(__file__).resolve().parent.parent.parent
#: Sections of the page that a run has only with settings other than those of this folder's runs.
MORE = {"detection", "explanations", "corruptions", "groups", "external"}
ITEMS = {
    f"{guideline.name} {item['number']}": item.get("parts", [item])
    for guideline in read_guidelines() for item in guideline.items
}  # fmt: skip
RULES = sorted({rule for parts in ITEMS.values() for part in parts for rule in part.get("records", [])})
#: Rules of tables in these sections, or of tables that need a column of the data.
TABLES = {"table:groups/Groups", "table:groups/Groups: site", "table:external/Classes"}


def findings(run: Run, study: StudyParams = EMPTY) -> dict[str, Finding]:
    found = find_evidence(run, sections(run, SETTINGS), study)
    return {finding.item: finding for items in found.values() for finding in items}


def test_the_guidelines_have_their_numbers() -> None:
    claim, tripod, act = read_guidelines()
    assert [item["number"] for item in claim.items] == [str(number) for number in range(1, 45)]
    mains = [int(re.sub(r"\D", "", item["number"])) for item in tripod.items]
    assert sorted(set(mains)) == list(range(1, 28))
    assert mains == sorted(mains)
    assert len(tripod.items) == 52
    paragraphs = [item["number"].rpartition("-")[0] for item in act.items]
    assert list(dict.fromkeys(paragraphs)) == ["IV.2(g)", "15(4)", "15(5)"]
    for guideline in (claim, tripod, act):
        for item in guideline.items:
            assert set(item) <= {"number", "asks", "records", "study", "parts"}
            assert "parts" not in item or (len(item["parts"]) > 1 and "records" not in item)
            for part in item.get("parts", [item]):
                assert part.get("study") is None or part["study"] in StudyParams.model_fields


def test_every_rule_finds_its_record_in_a_whole_run(folder: Path) -> None:
    run = read(folder)
    run.versions["x"] = "torch 2.0"
    run.header |= {"counts": {"Mild": 4}, "left_out": {}}
    parts = sections(run, SETTINGS)
    lacking = {rule for rule in RULES if place(rule, run, parts) is None}
    # This run has no folder data/code.
    more = {f"section:{name}" for name in MORE if f"section:{name}" in RULES}
    assert lacking == more | TABLES | {"hash:code"}
    with pytest.raises(KeyError):
        place("unknown:x", run, parts)


def test_an_empty_run_fills_nothing() -> None:
    assert {finding.status for finding in findings(Run([], [])).values()} == {MISSING}


def test_the_committed_records_fill_what_they_hold_and_no_more() -> None:
    """The records of the default run that git holds, without the data and the checkpoints."""
    params = check_params(preset("default"), "params.yaml")
    nothing = ROOT / "no such folder"
    where = Folders(nothing, ROOT / "metrics", ROOT / "plots", nothing, nothing)
    suites = list(params.attacks.suites)
    run = collect(
        where, list(params.models), suites, None, Ensemble("adv"), Patients(tuple(params.patient.suites))
    )
    settings = ReportSettings("t", 1, "patient", 0.95, dict.fromkeys(suites, "Linf"))
    found = find_evidence(run, sections(run, settings), EMPTY)
    by_item = {finding.item: finding for items in found.values() for finding in items}
    for item in ("CLAIM 19", "CLAIM 20", "CLAIM 28", "TRIPOD+AI 20a", "AI Act IV.2(g)-c", "AI Act IV.2(g)-a"):
        assert by_item[item].status == FILLED, item
    for item in ("CLAIM 7", "CLAIM 43", "CLAIM 38", "CLAIM 33", "TRIPOD+AI 18f", "TRIPOD+AI 12d"):
        assert by_item[item].status == MISSING, item
        assert "this run has no " in by_item[item].where, "the reason is named"
    for item in ("CLAIM 36", "CLAIM 37", "CLAIM 21", "TRIPOD+AI 20b", "AI Act IV.2(g)-b"):
        assert by_item[item].status == (PARTLY if item != "AI Act IV.2(g)-b" else MISSING), item
    assert by_item["CLAIM 44"].where == "study.funding"


def test_the_author_fills_items_that_no_record_can(folder: Path) -> None:
    run = read(folder)
    assert findings(run)["CLAIM 3"] == Finding(
        "CLAIM 3", "scientific and clinical background, intended use and role of the model", MISSING,
        "scientific and clinical background: study.items: CLAIM 3; intended use and role of the model: "
        "study.intended_use",
    )  # fmt: skip
    study = EMPTY.model_copy(
        update={"intended_use": "a second reader", "items": {"CLAIM 13": "1.5 T", "CLAIM 7": "x"}}
    )
    found = findings(run, study)
    assert found["CLAIM 3"].status == PARTLY, "the background is not there"
    assert found["CLAIM 3"].where == (
        "intended use and role of the model: a second reader; "
        "missing: scientific and clinical background: study.items: CLAIM 3"
    )
    assert found["TRIPOD+AI 3b"].status == AUTHOR
    assert (found["CLAIM 13"].status, found["CLAIM 13"].where) == (AUTHOR, "1.5 T")
    assert found["CLAIM 7"].status == FILLED
    assert found["CLAIM 7"].where.endswith("; x")
    assert found["CLAIM 4"].where == "study.items: CLAIM 4"


def test_an_item_is_filled_in_part_where_a_part_is_missing(folder: Path) -> None:
    """Three items that earlier counted as filled although their tables did not hold what they ask for."""
    found = findings(read(folder))
    assert found["CLAIM 36"].status == PARTLY
    assert found["CLAIM 36"].where == (
        "class as the clinical characteristic, of each part: Split (#data); "
        "missing: groups of patients of the test part: this run has no table Groups; "
        "missing: demographic and further clinical characteristics of each part: study.items: CLAIM 36"
    )
    for item in ("TRIPOD+AI 14", "AI Act 15(5)-f", "AI Act IV.2(g)-f", "AI Act IV.2(g)-g"):
        assert not [part for part in ITEMS[item] if "records" in part], "no record of a run answers it"
        assert found[item].status == MISSING
    assert found["AI Act 15(5)-d"].status == PARTLY
    assert (
        "missing: detection of attacked inputs: this run has no section detection" in found["AI Act 15(5)-d"].where
    )
    assert "dated and signed" in found["AI Act IV.2(g)-f"].where


def test_the_authors_text_stands_for_the_parts_that_no_record_fills(folder: Path) -> None:
    items = {"CLAIM 36": "ages are in table 1", "CLAIM 38": "see the paper", "AI Act IV.2(g)-f": "signed by N."}
    found = findings(read(folder), EMPTY.model_copy(update={"items": items}))
    assert found["CLAIM 36"].status == AUTHOR
    assert found["CLAIM 36"].where.endswith("Split (#data); ages are in table 1")
    assert found["CLAIM 38"].status == FILLED, "the records fill it"
    assert found["CLAIM 38"].where.endswith("; see the paper")
    assert (found["AI Act IV.2(g)-f"].status, found["AI Act IV.2(g)-f"].where) == (AUTHOR, "signed by N.")


@pytest.mark.parametrize(
    ("file", "items"),
    [
        ("metrics/audit.json", ["CLAIM 20"]),
        ("metrics/split.json", ["CLAIM 19", "CLAIM 9", "TRIPOD+AI 20a", "TRIPOD+AI 21"]),
        ("data/prepared/header.json", ["CLAIM 7", "CLAIM 10", "CLAIM 12", "TRIPOD+AI 18e"]),
        ("data/checkpoints/two/adv/card.json", ["CLAIM 22", "CLAIM 24", "CLAIM 25"]),
        ("metrics/ensemble.json", ["CLAIM 27"]),
    ],
)
def test_an_item_whose_evidence_is_absent_is_missing(folder: Path, file: str, items: list[str]) -> None:
    def statuses() -> set[str]:
        run = read(folder)
        run.header |= {"counts": {"Mild": 4}, "left_out": {}} if run.header else {}
        return {findings(run)[item].status for item in items}

    assert statuses() == {FILLED}
    (folder / file).unlink()
    assert statuses() == {MISSING}


def test_without_attacks_no_item_on_robustness_is_filled(folder: Path) -> None:
    for name in ("attack", "checks", "methods"):
        shutil.rmtree(folder / "metrics" / name, ignore_errors=True)
    found = findings(read(folder))
    for item in ("AI Act IV.2(g)-a", "AI Act IV.2(g)-d", "AI Act 15(5)-a", "CLAIM 30"):
        assert found[item].status == MISSING, item


@pytest.mark.parametrize("lacking", ["", "metrics/split.json", "data/prepared/header.json", "metrics/attack"])
def test_every_place_of_an_item_is_on_the_page(folder: Path, lacking: str) -> None:
    path = folder / lacking
    if lacking:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = read(folder)
    html = render_html(page_content(run, SETTINGS), {})
    known = set(re.findall(r'<section[^>]* id="(\w+)"', html))
    for finding in findings(run).values():
        places = re.findall(r"\(#(\w+)\)", finding.where)
        assert set(places) <= known, finding
        assert places or finding.status in (MISSING, AUTHOR), finding


def test_no_id_of_a_skipped_image_is_shown(folder: Path) -> None:
    run = read(folder)
    run.header["skipped"] = [{"id": "secret.png", "reason": "unreadable"}]
    assert findings(run)["CLAIM 12"].where == "skipped: 1 images (#data)"
    run.header["citation"] = "see (#nowhere) " + "x" * 200
    assert findings(run)["CLAIM 7"].status == FILLED
    assert len(findings(run)["CLAIM 7"].where) < 300


def test_an_item_that_no_guideline_has_is_refused(folder: Path) -> None:
    study = EMPTY.model_copy(update={"items": {"CLAIM 45": "x"}})
    with pytest.raises(UserError, match=r"study\.items.*no item 'CLAIM 45'.*evidence\.md") as caught:
        findings(read(folder), study)
    assert "CLAIM 13" in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines"])
def test_the_authors_text_is_one_line(text: str) -> None:
    for change in ({"funding": text}, {"items": {"CLAIM 13": text}}):
        content = preset("default")
        content["study"] |= change
        with pytest.raises(UserError, match=r"study\.(funding|items).*one line of visible text"):
            check_params(content, "params.yaml")


def test_page_and_file_link_to_the_sections_and_never_judge(folder: Path) -> None:
    run = read(folder, checked=True)
    html = render_html(page_content(run, SETTINGS), {})
    part = html[html.index('<section id="evidence"') : html.index('<section id="reproduce"')]
    assert '<a href="#data">' in part
    assert "of 44 items filled" in part
    assert "filled in part" in part
    write_report(run, SETTINGS, outputs(folder), folders(folder), pictures=False)
    text = (folder / "out" / "page" / "evidence.md").read_text()
    assert "[data](index.html#data)" in text
    assert set(re.findall(r"index\.html#(\w+)", text)) <= set(re.findall(r'<section[^>]* id="(\w+)"', html))
    for words in (part, text):
        assert not re.search(r"\b(pass(es|ed)?|compl(y|ies|iant))\b", words, flags=re.IGNORECASE)
    assert "CLAIM 2024" not in render_markdown(page_content(run, SETTINGS)), "results.md is for numbers"


def test_the_authors_text_is_escaped() -> None:
    assert mark_places("<b> (#data)") == '&lt;b&gt; <a href="#data">#data</a>'
    found = {"CLAIM 2024 (medical imaging)": [Finding("CLAIM 1", "a", AUTHOR, "<b> | *x*")]}
    assert "<b>" not in evidence_markdown("t", found)
