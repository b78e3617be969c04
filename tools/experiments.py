"""Compare experiments: one column per run, one row per value and metric that differs (`make experiments`).

`dvc exp show` has one row per run and tens of wide columns. Other than DVC, this shows no metrics of failed runs:
those that DVC shows for them are of the commit that they started from. Further arguments are passed to
`dvc exp show`, such as `--num 3` for three commits.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: What a value is called that a run does not have.
NONE = "-"
#: States in which the metrics are a run's own; DVC shows those of its base for all others.
WITH_METRICS = {"commit", "done", "running"}
#: Characters between two columns.
GAP = "  "


@dataclass(frozen=True)
class Column:
    """A commit, or an experiment that started from it, with its params and metrics by row label."""

    name: str
    state: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any] | None  # None: a run that has none of its own

    def cell(self, label: str) -> str:
        """The text in one row."""
        value = {**self.params, **(self.metrics or {})}.get(label)
        if value is None:
            return NONE
        if isinstance(value, float):
            return f"{value:.4g}"
        return value if isinstance(value, str) else json.dumps(value)


def columns(shown: list[dict[str, Any]]) -> list[Column]:
    """The commits and experiments of `dvc exp show --json`; the workspace is left out."""
    found = []
    for base in shown:
        if base["rev"] != "workspace":
            found.append(_column(base["name"], "commit", base))
        for experiment in base["experiments"] or []:
            state = (experiment["executor"] or {}).get("state", "success")
            found.append(
                _column(experiment["name"], "done" if state == "success" else state, experiment["revs"][0])
            )
    return found


def differing(found: list[Column]) -> list[str]:
    """The labels of rows in which runs differ; runs without metrics of their own make no difference in those."""
    rows = []
    for tables in ([column.params for column in found], [c.metrics for c in found if c.metrics is not None]):
        for label in dict.fromkeys(label for values in tables for label in values):
            first, *others = ((label in values, values.get(label)) for values in tables)
            if any(other != first for other in others):
                rows.append(label)
    return rows


def table(found: list[Column], width: int) -> str:
    """The comparison as text; columns that do not fit into `width` characters follow in blocks of their own."""
    labels = ["", "state", *differing(found)]
    cells = [[column.name, column.state, *map(column.cell, labels[2:])] for column in found]
    first = max(map(len, labels))
    blocks: list[list[list[str]]] = []
    room = 0
    for column in cells:
        need = len(GAP) + max(map(len, column))
        if need > room:
            blocks.append([])
            room = width - first
        blocks[-1].append(column)
        room -= need
    return "\n\n".join("\n".join(_lines(labels, first, block)) for block in blocks)


def notes(found: list[Column]) -> list[str]:
    """How to read the columns of runs that are not done."""
    names = {state: [c.name for c in found if c.state == state] for state in ("failed", "running")}
    texts = {
        "failed": "`dvc exp show` gives them the metrics of their base; `dvc queue logs NAME` says why",
        "running": "stages that have not run yet show the numbers of their base",
    }
    return [f"{state}: {', '.join(names[state])}; {text}." for state, text in texts.items() if names[state]]


def _lines(labels: list[str], first: int, block: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in block]
    for row, label in enumerate(labels):
        cells = (column[row].rjust(width) for column, width in zip(block, widths, strict=True))
        yield GAP.join([label.ljust(first), *cells]).rstrip()


def _column(name: str | None, state: str, revision: dict[str, Any]) -> Column:
    data = revision["data"] or {}
    params: dict[str, Any] = {}
    for content in (data.get("params") or {}).values():
        params |= dict(_flat(content.get("data") or {}))
    metrics: dict[str, Any] = {}
    for path, content in (data.get("metrics") or {}).items():
        file = path.removeprefix("metrics/").removesuffix(".json")
        metrics |= {f"{file} {label}": value for label, value in _flat(content.get("data") or {})}
    return Column(name or revision["rev"][:7], state, params, metrics if state in WITH_METRICS else None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def main() -> None:
    """Print the comparison."""
    command = ["dvc", "exp", "show", "--json", *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    found = columns(json.loads(done.stdout))
    sys.stdout.write(
        "\n".join([table(found, shutil.get_terminal_size((115, 40)).columns), "", *notes(found)]) + "\n"
    )


if __name__ == "__main__":
    main()
