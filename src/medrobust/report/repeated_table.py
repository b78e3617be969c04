"""A table of `make seeds` or `make folds` as a file, checked. Light: no torch, and pandas only once it reads."""

from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.records import file_hash, read_table, write_metrics

KEYS = ("unit", "model", "measure")
STATISTICS = ("runs", "mean", "sd", "worst")
#: What the runs differ in -> how the columns of single runs start.
RUNS = {"seeds": "seed-", "folds": "fold-"}


def write_repeated(file: Path, over: str, out: Path) -> None:
    """Check a table of repeated runs and write its rows as a metrics file.

    Raises:
        UserError: the file is missing, or it is no table of `make seeds` or `make folds`.
    """
    table = read_table(file)
    runs = [str(column) for column in table if str(column).startswith(RUNS[over])]
    known = set(table.select_dtypes("number")) | {*KEYS} & set(table)
    lacking = [name for name in (*KEYS, *STATISTICS, *runs) if name not in known]
    if lacking or not runs or table.empty:
        found = f"lacks {', '.join(lacking) or f'rows and columns {RUNS[over]}0, ...'}"
        remedy = f"Run `make {over}`, or fix report.repeated in params.yaml"
        raise UserError(str(file), f"is no table of `make {over}`: it {found}", remedy)
    rows = [row.dropna().to_dict() for _, row in table.iterrows()]
    made_on = {"table": file_hash(file)}
    write_metrics(out, {"file": file.as_posix(), "rows": rows, MADE_ON: made_on}, {"runs": len(runs)})
