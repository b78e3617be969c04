"""Attack all images of each patient at once with one suite: records, metrics and curve."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "prepared", "split", "suite", "records", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def main() -> None:
    """Run the suite on the test patients; without a patient unit in the data, write the reason."""
    from medrobust.attacks.engine.run import AttackOutputs, write_not_fitted
    from medrobust.attacks.engine.suite import read_suite
    from medrobust.data.store import open_splits
    from medrobust.models.folder import not_fitted
    from medrobust.models.patient import load_patient_model
    from medrobust.patients.attack import attack_patients
    from medrobust.patients.subsets import patient_groups

    params = load_params()
    outs = AttackOutputs(args.records, args.metrics, args.curve)
    if reason := not_fitted(args.model):
        write_not_fitted(outs, reason)
        return
    splits = open_splits(args.prepared, args.split)
    attack_patients(
        load_patient_model(args.model, device()),
        patient_groups(splits, "test", ordered=params.patient.aggregate == "gru"),
        read_suite(args.suite),
        outs,
        bit_depth=splits.store.header.bit_depth,
        seed=params.seed,
        report=params.report,
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"attack_patient-{args.name}", parallel=True, entries=read_entries(args.suite / "suite.json"))
