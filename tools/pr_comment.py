"""The text of a pull request's comment: verdicts, changed metrics, and the report's tables.

    dvc metrics diff --json origin/main | python tools/pr_comment.py --results report/results.md

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
#: Characters that the table of changes may fill; the report's tables have the rest.
CHANGES = 30_000


def comment(diff: dict[str, Any], results: str | None, limit: int = LIMIT, note: str = "") -> str:
    """The whole comment, not longer than `limit` characters; tables are cut between rows.

    Args:
        diff: what `dvc metrics diff --json` prints: path -> metric -> {old, new, diff}.
        results: the content of report/results.md, None if there is none.
        limit: of characters.
        note: what a reader must know of the comparison (a failed diff, another preset).
    """
    parts = [MARKER, "## medrobust", ""]
    parts += verdicts(results) if results else ["No report: the pipeline did not run to its end.", ""]
    parts += [f"> {note}", ""] if note else []
    head, tail = "\n<details><summary>Results</summary>\n\n", "\n</details>\n"
    cut = "\n*Cut here; the whole report is in the run's artifacts.*\n"
    if diff or not note:
        used = len("\n".join(parts)) + len(head) + len(tail) + len(cut)
        parts += changes(diff, max(min(CHANGES, limit - used), 0))
    text = "\n".join(parts)
    if results:
        room = limit - len(text) - len(head) - len(tail)
        body = results if len(results) <= room else whole_lines(results, room - len(cut)) + cut
        text += head + body + tail
    return text


def verdicts(results: str) -> list[str]:
    """The lines of the report that say how far to believe it."""
    return [*re.findall(r"^\*\*.+: .+\*\*$", results, flags=re.MULTILINE), ""]


def changes(diff: dict[str, Any], room: int = CHANGES) -> list[str]:
    """A Markdown table with one row a changed metric, in at most about `room` characters."""
    rows = [
        f"| {escape(path)} | {escape(name)} | {show(change.get('old'))} | {show(change.get('new'))} "
        f"| {delta(change)} |"
        for path, metrics in sorted(diff.items())
        for name, change in sorted(metrics.items())
    ]
    if not rows:
        return ["No metric differs from the base branch.", ""]
    head = [
        f"### {len(rows)} changed metrics",
        "",
        "| file | metric | base | this | change |",
        "|---|---|---|---|---|",
    ]
    more = "… and {} more: `dvc metrics diff` lists all."
    kept = whole_lines("\n".join(rows), room - len("\n".join([*head, more])) - 10).splitlines()
    return [*head, *kept, "", *([more.format(len(rows) - len(kept)), ""] if len(kept) < len(rows) else [])]


def whole_lines(text: str, room: int) -> str:
    """As many whole lines from the start of a text as fit into `room` characters."""
    return text if len(text) <= room else text[: max(text.rfind("\n", 0, max(room, 0)), 0)]


def show(value: object) -> str:
    """A value in a cell; a dash where the file or metric is new or gone."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def escape(text: str) -> str:
    """Text that cannot end a cell or its row."""
    return " ".join(text.splitlines()).replace("\\", "\\\\").replace("|", "\\|")


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
