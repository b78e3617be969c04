"""Print how long each stage took when it last ran on this machine (`make timings`)."""

import csv
import sys

from medrobust.core.runtime import TIMINGS, say


def latest(rows: list[list[str]]) -> list[list[str]]:
    """The last row of each cell, slowest first; rows are cell, seconds, processor seconds, MB, threads."""
    found = {row[0]: row for row in rows}
    return sorted(found.values(), key=lambda row: float(row[1]), reverse=True)


def main() -> None:
    """Print the table."""
    if not TIMINGS.is_file():
        sys.exit(f"{TIMINGS}: no such file. Run `make repro` first")
    with TIMINGS.open(newline="", encoding="utf-8") as file:
        rows = latest([*csv.reader(file)])
    say(f"{'stage':<44}{'seconds':>9}{'CPU s':>9}{'MB':>8}{'threads':>9}")
    for cell, wall, processor, peak, threads in rows:
        say(f"{cell:<44}{wall:>9}{processor:>9}{peak:>8}{threads:>9}")
    say(f"{'sum':<44}{sum(float(row[1]) for row in rows):>9.1f}{sum(float(row[2]) for row in rows):>9.1f}")


if __name__ == "__main__":
    main()
