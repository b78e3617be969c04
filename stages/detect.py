"""Give one model its detectors and measure what they are worth (see docs/detection.md for the time it takes)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import read_json, read_table
from medrobust.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "prepared", "split", "plan", "guard", "scores", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def main() -> None:
    """Fit on train, choose thresholds on val, test on test."""
    from medrobust.data.store import ImageStore
    from medrobust.detection.fitting import Splits
    from medrobust.detection.run import Outputs, run_detection
    from medrobust.models.checkpoint import load

    params = load_params()
    store, table = ImageStore.open(args.prepared), read_table(args.split, keep_default_na=False)
    train, val, test = (store.subset(table, name) for name in ("train", "val", "test"))
    run_detection(
        load(args.model, device()),
        Splits(train, val, test, params.seed),
        read_json(args.plan),
        Outputs(args.guard, args.scores, args.metrics, args.plots),
        ordered=store.header.ordered,
        params=params.detect,
        report=params.report,
        weights=read_json(args.model / "card.json")["sha256"],
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"detect-{args.name}")
