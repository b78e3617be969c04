"""The text of a pull request's comment, case by case."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.comment.committed import above_folds, results, text
from tools.comment.compare import compare
from tools.comment.render import LIMIT, Fold, clipped, folded, render
from tools.comment.verdict import BASE_OUTDATED, NONE, NOT_COMMITTED, UNKNOWN, Verdict
from tools.comment.workflow_run import WorkflowRun

MARK = "<!-- medrobust-results -->"
SMOKE = WorkflowRun(mode="smoke", because="DVC has no default remote", ran=["code", "train@resnet10t"])


def test_a_change_is_told_with_intervals_and_the_paired_test() -> None:
    base, this = results(), results(gain=0.12, adv={"eps": 0.005})
    comment = text(base, this, paired=lambda measure: 0.01 if measure.suite else 0.4)
    assert comment.startswith(f"{MARK}\n## 6 of 6 headline measures changed, 3 clearly\n")
    assert "- adv.eps: 0.02 -&gt; 0.005" in comment
    assert (
        "| ensemble-adv: robust accuracy, pgd, ε 0.02 | 0.500 [0.450, 0.550] | 0.620 [0.570, 0.670] | +0.120 "
        "| **yes:** intervals do not overlap, p = 0.01 |"
    ) in comment
    assert "| ensemble-adv: balanced accuracy | 0.800 [0.750, 0.850] | 0.920 [0.870, 0.970] | +0.120 " in comment
    assert (
        "- **Audit of the split:** clean → clean\n- **Checklist of the attacks:** suspect → suspect\n" in comment
    )


def test_overlapping_intervals_are_said_to_overlap() -> None:
    comment = text(results(), results(gain=0.03))
    assert "6 of 6 headline measures changed, none clearly" in comment
    assert "| +0.030 | intervals overlap |" in comment
    assert "**yes" not in comment
    assert "paired test" not in comment


def test_nothing_changed() -> None:
    comment = text(results(), results())
    assert "## No headline measure changed" in comment
    assert "**Params:** unchanged" in comment
    assert "**Headline measures**, committed on main → committed here: none of 6 changed" in comment
    assert "passed; no stage had to run" in comment
    assert "dvc.lock, metrics and plots are those that the pipeline gives" in comment


def test_ten_rows_at_most_and_clear_ones_first() -> None:
    names = tuple(f"net{number}" for number in range(6))
    base, this = results(backbones=names), results(backbones=names, gain=0.02)
    comment = text(base, this, paired=lambda measure: 0.001 if measure.model == "net5-clean" else 0.9)
    rows = [line for line in above_folds(comment).splitlines() if line.startswith("| ") and "+0.020" in line]
    assert len(rows) == 10
    assert ["net5-clean" in row for row in rows] == [True, True, *[False] * 8]
    assert rows[2].startswith("| ensemble-adv: balanced accuracy |")
    assert "26 of 26 changed, ten are shown" in comment
    assert comment.split("All headline measures")[1].count("+0.020") == 0
    assert comment.split("All headline measures")[1].count("| net") == 24


def test_other_suites_and_backbones_in_the_base() -> None:
    base = results(backbones=("net", "old"), suites={"pgd": ("0.01", "0.02"), "square": ("0.02",)})
    this = results(backbones=("net", "new"), suites={"pgd": ("0.02", "0.03"), "cw": ("0.02",)}, gain=0.2)
    comment = text(base, this)
    head = above_folds(comment)
    assert "*Only on main:* old-adv, old-clean, suite square" in head
    assert "*Only here:* new-adv, new-clean, suite cw" in head
    table = [line for line in head.splitlines() if line.startswith("| ")]
    assert not [line for line in table if "old" in line or "new" in line or "square" in line or "cw" in line]
    assert [line for line in table if "ensemble-adv: robust accuracy, pgd, ε 0.02" in line]


def test_the_base_has_no_results() -> None:
    base = results(outs={})
    base.records.clear()
    head = above_folds(text(base, results()))
    assert "## Nothing to compare" in head
    assert "clean" in head
    assert "**Audit of the split:** missing → **clean**" in head
    assert "**Headline measures**, committed here" in head
    assert "| ensemble-adv: balanced accuracy | 0.800 [0.750, 0.850] |" in head


def test_this_side_has_no_results() -> None:
    this = results(outs={})
    this.records.clear()
    head = above_folds(text(results(), this, verdict=Verdict(NONE)))
    assert "## No committed results" in head
    assert "there is no readable dvc.lock" in head
    assert "**Audit of the split:** clean → **missing**" in head
    assert "| change |" not in head


@pytest.mark.parametrize(("out", "word"), [("data/prepared", "data"), ("data/split.csv", "split")])
def test_numbers_of_other_data_are_not_compared(out: str, word: str) -> None:
    this = results(gain=0.1, outs={"data/prepared": "1.dir", "data/split.csv": "2", out: "other"})
    comment = text(results(), this, metrics={})
    assert "## Other test images: numbers are not compared" in comment
    assert f"**Other test images:** {word} of main and of this pull request differ" in comment
    assert "+0.100" not in comment
    assert "| ensemble-adv: balanced accuracy | 0.900 [0.850, 0.950] |" in comment


def test_a_failed_step_and_its_stage_are_named() -> None:
    run = WorkflowRun(
        mode="full", failed=["Reproduce what changed"], failed_stage="train@net", tail=["ERROR: disk\tis full"]
    )
    comment = text(results(), results(), run=run)
    assert "## Failed: Reproduce what changed" in comment
    assert "- **Run:** failed in *Reproduce what changed*, stage train@net." in comment
    assert "\n```\nERROR: disk is full\n```\n" in comment.split("<details>")[1]
    assert "No headline measure changed" not in comment


def test_failed_tests_are_named() -> None:
    comment = text(results(), results(), run=WorkflowRun(failed=["Set up and test"]), verdict=Verdict(UNKNOWN))
    assert "## Failed: Set up and test" in comment
    assert "failed in *Set up and test*.\n" in comment
    assert "the code of this commit could not be hashed" in comment


def test_the_smoke_run_reports_pass_only_and_committed_results_are_compared() -> None:
    comment = text(results(), results(gain=0.2), run=SMOKE)
    assert "the smoke preset passed" in comment
    assert "- **Why the smoke preset:** DVC has no default remote." in comment
    assert "by dvc.lock they belong to the committed params and code; they were not computed again" in comment
    assert "+0.200" in comment
    assert "resnet10t" not in comment


def test_a_fork_is_told_where_its_text_is() -> None:
    run = WorkflowRun(mode="smoke", because="the remote store cannot be used here: no keys", fork=True)
    comment = text(results(), results(), run=run)
    assert "**Fork:** GitHub gives it no secrets and does not let it comment" in comment
    assert "the remote store cannot be used here: no keys" in comment


def test_results_that_are_not_committed_come_first() -> None:
    run = WorkflowRun(mode="full", ran=["train@a", "train@b", "report"], differ=["dvc.lock", "metrics/a.json"])
    comment = text(results(), results(gain=0.12), run=run, verdict=Verdict(NOT_COMMITTED))
    assert "## Results not committed; 6 of 6 headline measures changed, 6 clearly" in comment
    assert "committed on main → reproduced here, not committed" in comment
    assert "passed; 3 stages ran: train 2, report." in comment
    assert "**Results not committed:** the run changed dvc.lock, metrics/a.json. Run `make repro`" in comment


def test_without_a_whole_run_the_outdated_stages_are_counted_with_reasons() -> None:
    stages = {
        "train@a": "adv.eps has changed",
        "attack@a": "adv.eps has changed",
        "audit": "audit.near has changed",
    }
    comment = text(results(), results(), run=SMOKE, verdict=Verdict(NOT_COMMITTED, stages))
    assert "outdated stages: 3 (adv.eps has changed; audit.near has changed)" in comment
    assert "committed on main → committed here (outdated): none of 6 changed" in comment
    assert "- train@a: adv.eps has changed" in comment.split("Outdated stages")[1]


def test_results_that_the_base_lacks_are_not_blamed_on_the_pull_request() -> None:
    old = {"train@a": "adv.eps has changed"}
    comment = text(results(), results(), run=SMOKE, verdict=Verdict(BASE_OUTDATED, old, old))
    assert "**Outdated on main, not by this pull request:** outdated stages: 1 (adv.eps has changed)" in comment
    assert "## No headline measure changed" in comment
    both = text(results(), results(), run=SMOKE, verdict=Verdict(NOT_COMMITTED, old, old))
    assert "**Outdated on main already:** 1 stage. Not all of this is due to this pull request." in both


def test_verdicts_that_changed_are_shown_by_model() -> None:
    comment = text(results(verdict="no problem found"), results(verdict="invalid", audit="leaking"))
    assert "- **Audit of the split:** clean → **leaking**" in comment
    assert "- **Checklist of the attacks:** no problem found → **invalid**\n" in comment
    assert "  - net-adv: no problem found → **invalid**" in comment


def test_what_was_not_pushed_is_said() -> None:
    comment = text(results(), results(), run=WorkflowRun(mode="full", not_pushed=4))
    assert "**Not pushed:** the remote lacks 4 outputs that dvc.lock names. Run `dvc push`." in comment


def test_packages_that_decide_numbers_are_named() -> None:
    this = results()
    this.versions["audit"] = "torch 2.12.0"
    assert "change every number: torch 2.11.0 -&gt; 2.12.0" in text(results(), this)


def test_the_metrics_and_the_report_are_folded() -> None:
    diff = {"metrics/a.json": {"x|y": {"old": 0.25, "new": None}, "z": {"new": "a|b"}}}
    comment = text(results(), results(), metrics=diff, report="# the report")
    assert "| metrics/a.json | x\\|y | 0.25 | – |" in comment
    assert "| metrics/a.json | z | – | a\\|b |" in comment
    assert "# the report" in comment.split("<details><summary>The report of this run")[1]
    assert "report" not in above_folds(comment)


NASTY = st.text(alphabet=st.sampled_from("ab\n\r|`*_<>#[]()\\~@&!$ \u2028"), min_size=1, max_size=400)


@settings(max_examples=40, deadline=None)
@given(name=NASTY, count=st.integers(1, 60), limit=st.integers(16_000, LIMIT))
def test_hostile_names_stay_on_their_line_and_the_head_small(name: str, count: int, limit: int) -> None:
    names = tuple(f"{name}{number}" for number in range(count))
    base = results(backbones=("net",), suites={name: ("0.02",)}, audit=name)
    this = results(backbones=names, suites={name: ("0.02",)}, gain=0.3, report={"title": name * 9})
    stages = {each: f"{each} has changed" for each in names}
    run = WorkflowRun(
        mode="full", because=name * 5, failed_stage=name, failed=["Reproduce what changed"], ran=[*names] * 5,
        differ=[*names],
    )  # fmt: skip
    verdict = Verdict(NOT_COMMITTED, stages, stages)
    comment = render(
        base=name, run=run, comparison=compare(base, this), verdict=verdict, limit=limit, report="x\n" * 40_000,
        metrics={each: {name: {"old": 0.1, "new": name}} for each in names},
    )  # fmt: skip
    assert len(comment) <= limit
    head = above_folds(comment)
    assert len(head.encode()) < 8_000
    assert head.count("\n## ") == 1
    assert comment.count("<details>") == comment.count("</details>")
    assert all(line.startswith(("|", "- ", "<", "x", "*Cut")) for line in comment[len(head) :].split("\n") if line)
    assert "<" not in head.replace(MARK, "").replace("<!-- -->", "")
    for line in head.split("\n"):
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (3, 6), line


def test_text_is_clipped_and_loses_its_meaning_for_markdown() -> None:
    assert clipped("a\n## |b") == "a ## \\|b"
    assert clipped("<b>") == "&lt;b&gt;"
    assert clipped("x" * 500) == "x" * 119 + "…"


def test_a_fold_is_cut_between_lines_and_says_so() -> None:
    fold = Fold("t", ["first", "second " * 20, "third"])
    whole = folded(fold, 1_000)
    assert whole == "\n<details><summary>t</summary>\n\nfirst\n" + "second " * 20 + "\nthird\n\n</details>\n"
    cut = folded(fold, len(whole) - 1)
    assert len(cut) < len(whole)
    assert "first\n\n*Cut here" in cut
    assert cut.endswith("</details>\n")
    assert folded(fold, 60) == ""
