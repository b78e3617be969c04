"""Copy the weights of a backbone into folders to share, each with a model card (seconds, no torch)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    for name in ("checkpoints", "prepared", "metrics", "plots", "tuned", "suites", "lock"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, nargs=2, required=True, help="of the clean and the adversarial model")
    return parser.parse_args()


def main() -> None:
    """Collect the results of the backbone, and write both folders."""
    from medrobust.report.collect import Folders, collect
    from medrobust.report.provenance import Provenance
    from medrobust.report.publish.model_cards import PublishedModel, publish
    from medrobust.report.run import REGIMES
    from medrobust.report.tables.corruptions import read_corruption_records

    params = load_params()
    suites = params.attacks.suites
    folders = Folders(args.prepared, args.metrics, args.plots, args.tuned, args.checkpoints, suites=args.suites)
    run = collect(folders, [args.backbone], list(suites), Provenance.of(args.lock))
    read_corruption_records(run, args.metrics, [args.backbone])
    for regime, out in zip(REGIMES, args.out, strict=True):
        publish(PublishedModel(run, args.backbone, regime, suites, params.report.confidence), folders, out)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"publish-{args.backbone}")
