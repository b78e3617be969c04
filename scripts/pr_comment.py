"""The text of a pull request's comment: verdicts, changed metrics, and the report's tables.

    dvc metrics diff --json origin/main | python scripts/pr_comment.py --results report/results.md

The first line is a marker by which the workflow finds its earlier comment.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

MARKER = "<!-- medrobust-results -->"
#: GitHub refuses longer comments.
LIMIT = 65_536
#: Rows of the table of changes.
MOST_ROWS = 200


def comment(diff: dict[str, Any], results: str | None, limit: int = LIMIT, note: str = "") -> str:
    """The whole comment, shorter than `limit` characters.

    Args:
        diff: what `dvc metrics diff --json` prints: path -> metric -> {old, new, diff}.
        results: the content of report/results.md, None if there is none.
        limit: of characters.
        note: what a reader must know of the comparison (a failed diff, another preset).
    """
    parts = [MARKER, "## medrobust", ""]
    parts += verdicts(results) if results else ["No report: the pipeline did not run to its end.", ""]
    parts += [f"> {note}", ""] if note else []
    parts += changes(diff) if diff or not note else []
    text = "\n".join(parts)
    if results:
        head, tail = "\n<details><summary>Results</summary>\n\n", "\n</details>\n"
        cut = "\n\n*Cut here; the whole report is in the run's artifacts.*\n"
        room = limit - len(text) - len(head) - len(tail) - len(cut) - 1
        body = results if len(results) <= room else results[: max(results.rfind("\n", 0, max(room, 0)), 0)] + cut
        text += head + body + tail
    return text[:limit]


def verdicts(results: str) -> list[str]:
    """The lines of the report that say how far to believe it."""
    return [*re.findall(r"^\*\*.+: .+\*\*$", results, flags=re.MULTILINE), ""]


def changes(diff: dict[str, Any]) -> list[str]:
    """A Markdown table with one row a changed metric."""
    rows = [
        f"| {path} | {name} | {show(change.get('old'))} | {show(change.get('new'))} | {delta(change)} |"
        for path, metrics in sorted(diff.items())
        for name, change in sorted(metrics.items())
    ]
    if not rows:
        return ["No metric differs from the base branch.", ""]
    more = [f"… and {len(rows) - MOST_ROWS} more.", ""] if len(rows) > MOST_ROWS else []
    head = ["| file | metric | base | this | change |", "|---|---|---|---|---|"]
    return [f"### {len(rows)} changed metrics", "", *head, *rows[:MOST_ROWS], "", *more]


def show(value: object) -> str:
    """A value in a cell; a dash where the file or metric is new or gone."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def delta(change: dict[str, Any]) -> str:
    """The signed difference, `new` or `gone`."""
    if change.get("old") is None:
        return "new"
    if change.get("new") is None:
        return "gone"
    difference = change.get("diff")
    return f"{difference:+.4g}" if isinstance(difference, int | float) else ""


def main() -> None:
    """Read the difference from standard input and print the comment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("report/results.md"))
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    content = sys.stdin.read().strip()
    diff = json.loads(content) if content else {}
    results = args.results.read_text(encoding="utf-8") if args.results.is_file() else None
    sys.stdout.write(comment(diff, results, note=args.note.strip()))


if __name__ == "__main__":
    main()
