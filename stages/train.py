"""Train a backbone on clean images, or adversarially from its clean model (about a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("settings", "prepared", "split", "best", "out", "predictions", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--clean", type=Path, help="checkpoint of the clean model: train adversarially from it")
    return parser.parse_args()


def main() -> None:
    """Train, evaluate and write the results."""
    from medrobust.training.run import PreparedImages, TrainingRun, TrainOutputs, adv_train_stage, train_stage
    from medrobust.training.settings import read_settings

    params = load_params()
    run = TrainingRun(
        settings=read_settings(args.settings),
        images=PreparedImages.open(args.prepared, args.split),
        best=args.best,
        outputs=TrainOutputs(args.out, args.predictions, args.metrics, args.plots),
        seed=params.seed,
        augment=params.augment,
        report=params.report,
    )
    if args.clean:
        adv_train_stage(run, args.clean)
    else:
        train_stage(run)


if __name__ == "__main__":
    args = parse()
    entries = read_entries(args.settings)
    run_stage(main, f"train-{args.settings.parent.name}-{args.out.name}", parallel=True, entries=entries)
