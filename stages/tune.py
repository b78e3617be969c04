"""Search the hyper-parameters of a backbone with Optuna (half a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("settings", "prepared", "split", "out", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Run the study."""
    from medrobust.training.settings import read_settings
    from medrobust.training.trials import TuningStudy
    from medrobust.training.tuning import TuneOutputs, tune_stage

    params = load_params()
    tuning = TuningStudy(read_settings(args.settings), args.prepared, args.split, params.seed, params.augment)
    tune_stage(tuning, TuneOutputs(args.out, args.metrics, args.plots))


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"tune-{args.settings.parent.name}", entries=read_entries(args.settings))
