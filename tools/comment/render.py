"""The text of the comment: comment.md.jinja, and below it the folds, cut between lines at GitHub's limit."""

import re
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medrobust.core.text import code_block, markdown, one_line
from medrobust.report.tables.table import number, ranged
from tools.comment.compare import Comparison, Row
from tools.comment.results import Value
from tools.comment.verdict import NONE, NOT_COMMITTED, Verdict
from tools.comment.workflow_run import WorkflowRun

#: GitHub refuses longer comments.
LIMIT = 65_536
#: Characters of one text above the folds.
CLIP = 120


class Fold(NamedTuple):
    """Lines that open on demand."""

    title: str
    lines: list[str]


def render(
    *,
    base: str,
    run: WorkflowRun,
    comparison: Comparison,
    verdict: Verdict,
    metrics: dict[str, Any] | None = None,
    report: str = "",
    limit: int = LIMIT,
) -> str:
    """The whole comment, at most `limit` characters; its first line is the mark by which the workflow finds it.

    Args:
        base: name of the base branch.
        run: what the workflow did.
        comparison: of the committed results.
        verdict: on the committed results.
        metrics: what `dvc metrics diff --json` prints for both commits: path -> metric -> {old, new}.
        report: the report of this run in Markdown, for the last fold.
        limit: of characters.
    """
    title = headline(run, comparison, verdict)
    text = _template().render(
        title=title, base=base, run=run, comparison=comparison, verdict=verdict, source=source(run, verdict)
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    for fold in folds(run, comparison, verdict, metrics or {}, report):
        text += folded(fold, limit - len(text))
    return text


def headline(run: WorkflowRun, comparison: Comparison, verdict: Verdict) -> str:
    """The title: what a reviewer must know first."""
    changed = comparison.changed
    clear = sum(row.clear for row in changed)
    numbers = f"{len(changed)} of {len(comparison.rows)} headline measures changed, {clear or 'none'} clearly"
    if run.failed:
        return f"Failed: {', '.join(run.failed)}"
    if verdict.word == NOT_COMMITTED:
        return f"Results not committed; {numbers}" if run.reproduced and changed else "Results not committed"
    if verdict.word == NONE:
        return "No committed results"
    if comparison.other_data:
        return "Other test images: numbers are not compared"
    if changed:
        return numbers
    return "No headline measure changed" if comparison.rows else "Nothing to compare"


def source(run: WorkflowRun, verdict: Verdict) -> str:
    """Where the numbers of this side are from."""
    if verdict.word == NOT_COMMITTED:
        return "reproduced here, not committed" if run.reproduced else "committed here (outdated)"
    return "committed here"


def folds(
    run: WorkflowRun, comparison: Comparison, verdict: Verdict, metrics: dict[str, Any], report: str
) -> Iterator[Fold]:
    """What is folded, the most urgent first; folds without lines are left out."""
    log = code_block("\n".join(one_line(line)[:200] for line in run.tail)).splitlines()
    measures = [
        [clipped(row.measure.label), _value(row.base), _value(row.this), _chance(row) if row.changed else "0"]
        for row in comparison.rows
    ]
    numbers = [
        [clipped(path), clipped(name), _metric(change.get("old")), _metric(change.get("new"))]
        for path, changes in sorted(metrics.items())
        for name, change in sorted(changes.items())
    ]
    yield from (
        fold
        for fold in (
            Fold("The end of the pipeline's log", log if run.tail else []),
            Fold("Files that the run changed", [f"- {clipped(path)}" for path in run.differ]),
            Fold("Outdated stages", [f"- {clipped(f'{k}: {v}')}" for k, v in sorted(verdict.stages.items())]),
            Fold("All params that changed", [f"- {clipped(line)}" for line in comparison.params[15:]]),
            Fold("All headline measures", _table(["measure", "base", "this", "more than chance?"], measures)),
            Fold("All changed metrics", _table(["file", "metric", "base", "this"], numbers)),
            Fold("The report of this run", report.splitlines()),
        )
        if fold.lines
    )


def folded(fold: Fold, room: int) -> str:
    """A fold in at most `room` characters, cut between lines; empty if not even one line fits."""
    head, tail = f"\n<details><summary>{fold.title}</summary>\n\n", "\n</details>\n"
    cut = "\n*Cut here; the artifacts of the run have the rest.*\n"
    body = "".join(f"{line}\n" for line in fold.lines)
    if len(head) + len(body) + len(tail) <= room:
        return head + body + tail
    end = body.rfind("\n", 0, max(room - len(head) - len(cut) - len(tail), 0)) + 1
    return head + body[:end] + cut + tail if end else ""


def clipped(value: object) -> str:
    """A text on one line that means nothing in Markdown or HTML; longer ones are clipped."""
    text = one_line(value)
    return markdown(text if len(text) <= CLIP else f"{text[: CLIP - 1]}…")


def listed(found: Iterable[object], shown: int, separator: str = ", ") -> str:
    """The first texts of a list, and how many more there are."""
    texts = [*map(clipped, found)]
    rest = [f"… and {len(texts) - shown} more"] if len(texts) > shown else []
    return separator.join([*texts[:shown], *rest])


def _chance(row: Row) -> str:
    intervals = {True: "intervals overlap", False: "intervals do not overlap", None: "no intervals"}[row.overlap]
    return f"{'**yes:** ' if row.clear else ''}{intervals}{'' if row.p is None else f', p = {row.p:.2g}'}"


def _arrow(pair: tuple[str, str]) -> str:
    old, new = map(clipped, pair)
    return f"{old} → {new}" if old == new else f"{old} → **{new}**"


def _value(value: Value) -> str:
    return ranged(value.value, *value.interval) if value.interval else number(value.value)


def _metric(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else clipped(value)


def _count_of(stages: Sized) -> str:
    return f"{len(stages)} stage{'' if len(stages) == 1 else 's'}"


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)] if rows else []


def _template() -> Any:
    folder = Environment(
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    folder.filters |= {"md": clipped, "listed": listed, "arrow": _arrow, "value": _value, "chance": _chance}
    folder.filters["count_of"] = _count_of
    return folder.get_template("comment.md.jinja")
