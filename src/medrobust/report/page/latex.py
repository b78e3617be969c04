"""The report's tables as LaTeX for papers: a `tabular` with booktabs rules, one file per table."""

import re

from medrobust.core.text import one_line
from medrobust.report.tables.table import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "ε": r"$\varepsilon$", "²": r"$^2$", "∞": r"$\infty$", "×": r"$\times$", "–": "--", "→": r"$\to$",
    "“": "``", "”": "''",
}  # fmt: skip


def latex(table: Table) -> str:
    r"""The table for `\input`; it needs the package booktabs. Title and note are comments above it."""
    numbers = "".join("r" if _numeric(column) else "l" for column in zip(*table.rows, strict=True))
    lines = [f"% {one_line(text)}" for text in (table.title, table.note) if text]
    lines += [rf"\begin{{tabular}}{{{numbers or 'l' * len(table.columns)}}}", r"\toprule", _row(table.columns)]
    lines += [r"\midrule", *(_row(row) for row in table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def file_name(table: Table) -> str:
    """A file name from the table's title, without a suffix; names of models and suites differ in it too."""
    return re.sub(r"[^a-z0-9_]+", "-", table.title.lower()).strip("-")


def escape(text: str) -> str:
    """Text with LaTeX's special characters, and the symbols of these tables, as commands."""
    return "".join(SPECIAL.get(sign, sign) for sign in one_line(text))


def _row(cells: list[str]) -> str:
    # LaTeX reads a bracket or an asterisk at the start of a row as an argument of the end of the row before.
    protected = (f"{{{text}}}" if text.lstrip().startswith(("[", "*")) else text for text in map(escape, cells))
    return " & ".join(protected) + r" \\"


def _numeric(column: tuple[str, ...]) -> bool:
    return any(re.match(r"-?\d", cell) for cell in column)
