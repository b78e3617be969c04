"""Assign images to train, validation and test: reads the manifest, writes data/split.csv (about a second)."""

import argparse
from pathlib import Path

from medrobust.core.lineage import MADE_ON
from medrobust.core.params.schema import load_params
from medrobust.core.records import write_metrics, write_table
from medrobust.core.runtime import run_stage


def main() -> None:
    """Write the split table and its counts."""
    from medrobust.data.split import make_split, split_metrics
    from medrobust.data.store import open_splits, read_header, read_manifest

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    manifest, header = (
        read_manifest(args.prepared / "manifest.csv"),
        read_header(args.prepared / "header.json"),
    )
    table = make_split(manifest, header, params.split, params.seed)
    write_table(args.out, table)
    counts = split_metrics(table, manifest, header)
    test = counts["test"]
    made_on = open_splits(args.prepared, args.out).hashes
    write_metrics(args.metrics, {**counts, MADE_ON: made_on}, {"n": test["images"], "patients": test["patients"]})


if __name__ == "__main__":
    run_stage(main, "split")
