"""Fit the model of patients on a network of images, and evaluate it on clean images (seconds on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("network", "prepared", "split", "out", "predictions", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Fit, evaluate and write; without a patient unit in the data, write the reason."""
    from medrobust.data.store import open_splits
    from medrobust.patients.evaluate import PatientOutputs, run_patient_stage

    params = load_params()
    outs = PatientOutputs(args.out, args.predictions, args.metrics)
    splits = open_splits(args.prepared, args.split)
    run_patient_stage(args.network, splits, outs, params.patient, params.report, seed=params.seed)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"patient-{args.out.name}")
