"""Train a backbone on clean images with the tuned hyper-parameters (about a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("settings", "prepared", "split", "best", "out", "predictions", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Train, evaluate and write."""
    from medrobust.training.outputs import Paths
    from medrobust.training.run import Images, Training, train_stage
    from medrobust.training.settings import read_settings

    params = load_params()
    training = Training(
        settings=read_settings(args.settings),
        images=Images.open(args.prepared, args.split),
        best=args.best,
        paths=Paths(args.out, args.predictions, args.metrics, args.plots),
        seed=params.seed,
        augment=params.augment,
        report=params.report,
    )
    train_stage(training)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"train-{args.settings.parent.name}", parallel=True)
