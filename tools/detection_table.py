"""Print what detectors see, unaware → aware, as a Markdown table: `python tools/detection_table.py [file ...]`.

Without arguments every record in metrics/detect. A cell is the AUROC of attacked against clean test images on the
successful attacks among the images that aware attackers were given: of the suite's own attack, then of the least
suspicious that any attacker reached.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.records import read_metrics
from medrobust.report.tables.table import Table, number


def table(name: str, record: dict[str, Any]) -> str:
    """A row a detector, a column a suite."""
    suites = record["suites"]
    detectors = [key for key in next(iter(suites.values())) if key != "eps"]
    columns = ["detector", *(f"{suite} ε {results['eps']:g}" for suite, results in suites.items())]
    rows = [[detector, *(_cell(results[detector]) for results in suites.values())] for detector in detectors]
    return Table(name, columns, rows).markdown()


def _cell(row: dict[str, Any]) -> str:
    pair = [row.get("adaptive", {}).get(kind, {}) for kind in ("unaware", "worst")]
    cells = [number(part.get("successful_auroc")) for part in pair]
    unseen = "" if row.get("seen", True) else " (unseen)"
    return f"{cells[0]} → {cells[1]}{unseen}"


def main() -> None:
    """Print one table a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="*", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("metrics/detect"))
    args = parser.parse_args()
    paths = args.records or sorted(args.folder.glob("*.json"))
    records = {path.stem: record for path in paths if (record := read_metrics(path))}
    if not records:
        remedy = "Set models.B.detect, and run `dvc repro detect`"
        raise UserError(str(args.folder), "has no record of a model with detectors", remedy)
    for name, record in records.items():
        sys.stdout.write(table(name, record) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
