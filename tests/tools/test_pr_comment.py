"""The comment of a pull request, and the workflow that posts it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.pr_comment import LIMIT, MARKER, comment

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = """# run

**Audit of the split: clean**

**Checklist of the attacks: suspect**

### Clean images

| a |
|---|
| 1 |
"""


def test_no_difference_is_said() -> None:
    text = comment({}, RESULTS)
    assert text.startswith(MARKER)
    assert "No metric differs" in text
    assert (
        text.index("**Audit of the split: clean**")
        < text.index("No metric differs")
        < text.index("### Clean images")
    )


def test_changed_new_and_gone_metrics_have_a_row() -> None:
    diff = {
        "metrics/ensemble.json": {"accuracy": {"old": 0.5, "new": 0.75, "diff": 0.25}},
        "metrics/audit.json": {"verdict": {"old": "clean", "new": "a|b"}},
        "metrics/new.json": {"x": {"new": 1}},
        "metrics/old.json": {"x": {"old": 2}},
    }
    text = comment(diff, None)
    assert "| metrics/ensemble.json | accuracy | 0.5 | 0.75 | +0.25 |" in text
    assert "| metrics/audit.json | verdict | clean | a\\|b |  |" in text
    assert "| metrics/new.json | x | – | 1 | new |" in text
    assert "| metrics/old.json | x | 2 | – | gone |" in text
    assert "No report" in text


@settings(max_examples=40, deadline=None)
@given(
    files=st.integers(0, 400),
    name=st.text(min_size=1, max_size=60),
    value=st.one_of(st.floats(-1, 1), st.text(max_size=300)),
    results=st.one_of(st.none(), st.integers(0, 9_000)),
    limit=st.integers(1_500, LIMIT),
)
def test_any_comment_is_cut_below_the_limit_and_between_rows(
    files: int, name: str, value: float | str, results: int | None, limit: int
) -> None:
    diff = {f"metrics/{i}.json": {name: {"old": value, "new": value}} for i in range(files)}
    body = None if results is None else RESULTS + "| row |\n" * results
    text = comment(diff, body, limit)
    assert len(text) <= limit
    rows = [line for line in text.split("\n") if line.startswith("| metrics/")]
    for row in rows:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 6, row
        assert row.endswith("|")
    if body:
        assert text.endswith("</details>\n")
        assert all(
            line in ("| row |", "| a |", "|---|", "| 1 |") for line in text.split("\n") if "row" in line[:5]
        )


def test_a_long_comment_says_what_was_cut() -> None:
    diff = {f"metrics/{i}.json": {"accuracy": {"old": 0.1, "new": 0.2, "diff": 0.1}} for i in range(2000)}
    text = comment(diff, RESULTS + "| row |\n" * 40_000)
    shown = text.count("| metrics/")
    assert f"and {2000 - shown} more" in text
    assert 100 < shown < 2000
    assert "Cut here" in text


def test_names_cannot_break_a_row() -> None:
    diff = {"metrics/a|b.json": {"x|y\nz": {"old": 1, "new": 2, "diff": 1}}}
    assert "| metrics/a\\|b.json | x\\|y z | 1 | 2 | +1 |" in comment(diff, None)


def test_rows_are_sorted_and_counted() -> None:
    change = {"old": 0.1, "new": 0.2, "diff": 0.1}
    text = comment({"metrics/b.json": {"y": change, "x": change}, "metrics/a.json": {"z": change}}, None)
    places = [text.index(f"| metrics/{file}.json | {name} |") for file, name in ("az", "bx", "by")]
    assert places == sorted(places)
    assert "3 changed metrics" in text


def test_a_failed_comparison_is_not_called_no_difference() -> None:
    text = comment({}, RESULTS, note="The comparison with the base branch failed.")
    assert "> The comparison with the base branch failed." in text
    assert "No metric differs" not in text


def test_the_script_reads_dvc_and_prints(tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text(RESULTS)
    command = [sys.executable, str(ROOT / "tools" / "pr_comment.py"), "--results", str(tmp_path / "results.md")]
    diff = json.dumps({"m.json": {"a": {"old": 1, "new": 2, "diff": 1}}})
    done = subprocess.run(command, input=diff, capture_output=True, text=True, check=True)
    assert "| m.json | a | 1 | 2 | +1 |" in done.stdout


def test_the_workflow_is_sound() -> None:
    text = (ROOT / ".github" / "workflows" / "pull-request.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert MARKER in text
    assert "pull_request_target" not in text, "code of a fork must not meet secrets"
    steps = workflow["jobs"]["results"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    pulled = ("dvc pull --allow-missing", "dvc repro --pull --allow-missing")
    for name in ("make test", *pulled, "make preset NAME=smoke", "tools/pr_comment.py"):
        assert name in commands
    for step in steps:
        assert ("uses" in step) != ("run" in step)


def test_every_script_and_target_that_the_workflow_names_exists() -> None:
    text = (ROOT / ".github" / "workflows" / "pull-request.yml").read_text()
    scripts = set(re.findall(r"\b(?:stages|presets|tools|benchmarks)/[\w./-]+", text))
    assert "tools/pr_comment.py" in scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([\w-]+)", text))
    assert targets
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, flags=re.MULTILINE)] == []
