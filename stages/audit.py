"""Audit the split before any training: can results on it be trusted? (seconds)."""

import argparse
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.schema import load_params
from medrobust.core.records import atomic_dir, write_metrics, write_table
from medrobust.core.runtime import run_stage, say


def main() -> None:
    """Write the verdict with its reasons, the tables behind it, and a contact sheet of the worst pairs."""
    from medrobust.data.audit.audit_split import audit_split
    from medrobust.data.audit.contact_sheet import contact_sheet
    from medrobust.data.store import open_splits

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("prepared", "split", "metrics", "tables", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    data = open_splits(args.prepared, args.split)
    result = audit_split(data.store, data.table, params.audit)
    with atomic_dir(args.tables) as folder:
        write_table(folder / "pairs.csv", result.pairs.drop(columns=["row", "other_row"]))
        write_table(folder / "suspects.csv", result.suspects)
        if params.report.pictures:
            contact_sheet(data.store, result.pairs, result.nearest, folder)
    with atomic_dir(args.plots) as folder:
        write_table(folder / "closeness.csv", result.closeness)
    metrics = result.metrics
    write_metrics(args.metrics, {**metrics, MADE_ON: data.hashes}, {"verdict": metrics["verdict"]})
    say(f"audit: {metrics['verdict']}" + "".join(f"\n  - {reason}" for reason in metrics["reasons"]))
    if metrics["verdict"] == "leaking" and params.audit.on_leak == "fail":
        found, remedy = "; ".join(metrics["reasons"]), "Change the split, or set audit.on_leak: warn"
        raise UserError(str(args.split), f"leaking: {found}", remedy)


if __name__ == "__main__":
    run_stage(main, "audit")
