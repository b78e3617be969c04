"""Attack the ensemble end to end, one image for all members (under a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import read_json, read_table
from medrobust.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "prepared", "split", "suite", "records", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def main() -> None:
    """Run the suite on the test images."""
    from medrobust.attacks.run import run_suite
    from medrobust.data.store import ImageStore
    from medrobust.ensemble import load_ensemble

    params = load_params()
    subset = ImageStore.open(args.prepared).subset(read_table(args.split, keep_default_na=False), "test")
    run_suite(
        load_ensemble(args.model, device()),
        subset,
        read_json(args.suite),
        name=args.name,
        seed=params.seed,
        on_invalid=params.attacks.on_invalid,
        report=params.report,
        records=args.records,
        metrics_path=args.metrics,
        curve=args.curve,
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"attack_ensemble-{args.name}")
