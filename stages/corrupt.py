"""Evaluate a backbone's models on corrupted test images: motion, noise, exposure, ... (some seconds per model)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_empty
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("switch", "suite", "prepared", "split"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("models", "patients", "metrics", "tables"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    parser.add_argument("--backbone", required=True)
    return parser.parse_args()


def main() -> None:
    """Evaluate the clean and the adversarially trained model; write empty outs if `models.B.corrupt` is off."""
    if not read_json(args.switch)["corrupt"]:
        write_empty(*args.metrics, *args.tables)
        return
    from medrobust.corruptions.run import CorruptionOutputs, PatientGroups, evaluate_corruptions
    from medrobust.data.store import open_splits
    from medrobust.models.card import not_fitted, weights_hash
    from medrobust.models.checkpoint import load
    from medrobust.models.patient import load_patient_model
    from medrobust.patients.subsets import patient_groups

    params, images, suite = load_params(), open_splits(args.prepared, args.split), read_json(args.suite)
    test = images.subset("test")
    for folder, patient, *outs in zip(args.models, args.patients, args.metrics, args.tables, strict=True):
        patients = None
        if not not_fitted(patient):
            patients = PatientGroups(load_patient_model(patient, device()), patient_groups(images, "test"))
        evaluate_corruptions(
            load(folder, device()), test, patients, suite, CorruptionOutputs(*outs), seed=params.seed,
            report=params.report, made_on={"weights": weights_hash(folder), **images.hashes},
        )  # fmt: skip


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"corrupt-{args.backbone}", entries=read_entries(args.suite))
