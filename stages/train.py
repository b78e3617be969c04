"""Train a backbone on clean images with the tuned hyper-parameters (about a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    for name in ("prepared", "split", "best", "out", "predictions", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Train, evaluate and write."""
    from medrobust.training.outputs import Paths
    from medrobust.training.run import Images, train_stage

    params = load_params()
    train_stage(
        args.backbone,
        Images.open(args.prepared, args.split),
        Paths(args.out, args.predictions, args.metrics, args.plots),
        args.best,
        seed=params.seed,
        model=params.models[args.backbone],
        train=params.train,
        augment=params.augment,
        report=params.report,
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"train-{args.backbone}")
