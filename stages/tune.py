"""Search the hyper-parameters of a backbone with Optuna (half a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    for name in ("prepared", "split", "out", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Run the study."""
    from medrobust.training.run import Images
    from medrobust.training.tuning import tune_stage

    params = load_params()
    images = Images.open(args.prepared, args.split)
    tune_stage(
        args.backbone,
        images.subsets,
        images.hashes,
        out=args.out,
        metrics=args.metrics,
        plots=args.plots,
        seed=params.seed,
        model=params.models[args.backbone],
        train=params.train,
        tune=params.tune,
        augment=params.augment,
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"tune-{args.backbone}")
