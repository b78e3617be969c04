"""Audit the split, or an external data set, before any training: can results on it be trusted? (seconds)."""

import argparse
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON
from medrobust.core.params.schema import load_params
from medrobust.core.records import atomic_dir, write_metrics, write_table
from medrobust.core.runtime import run_stage, say


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; with `--external`, the store of these data is compared with the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("prepared", "split", "metrics", "tables"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("external", "plots"):
        parser.add_argument(f"--{name}", type=Path)
    return parser.parse_args()


def main() -> None:
    """Write the verdict with its reasons, the tables behind it, and a contact sheet of the worst pairs."""
    from medrobust.data.audit.audit_split import audit_split
    from medrobust.data.audit.contact_sheet import contact_sheet
    from medrobust.data.audit.external import audit_external
    from medrobust.data.store import ImageStore, open_splits

    params = load_params()
    data = open_splits(args.prepared, args.split)
    made_on = data.hashes
    if args.external:
        external = ImageStore.open(args.external)
        found = audit_external(external, data, params.audit)
        metrics, made_on = found.metrics, {**made_on, "external": external.header.sha256}
        with atomic_dir(args.tables) as folder:
            write_table(folder / "copies.csv", found.copies)
    else:
        result = audit_split(data.store, data.table, params.audit)
        metrics = result.metrics
        with atomic_dir(args.tables) as folder:
            write_table(folder / "pairs.csv", result.pairs.drop(columns=["row", "other_row"]))
            write_table(folder / "suspects.csv", result.suspects)
            if params.report.pictures:
                contact_sheet(data.store, result.pairs, result.nearest, folder)
        with atomic_dir(args.plots) as folder:
            write_table(folder / "closeness.csv", result.closeness)
    write_metrics(args.metrics, {**metrics, MADE_ON: made_on}, {"verdict": metrics["verdict"]})
    say(f"audit: {metrics['verdict']}" + "".join(f"\n  - {reason}" for reason in metrics["reasons"]))
    if metrics["verdict"] == "leaking" and params.audit.on_leak == "fail":
        found_leaks = "; ".join(metrics["reasons"])
        remedy = "Leave the copies out" if args.external else "Change the split"
        where = str(args.external or args.split)
        raise UserError(where, f"leaking: {found_leaks}", f"{remedy}, or set audit.on_leak: warn")


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"audit-{args.external.name}" if args.external else "audit")
