"""Attack one model of images or patients with one suite: records, metrics and curve (up to a minute per cell)."""

import argparse
from pathlib import Path
from typing import Any

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
    """Run the suite on the test images or patients; of a model that could not be fitted, write that and why."""
    from medrobust.attacks.engine.run import AttackOutputs, run_suite, write_not_fitted
    from medrobust.attacks.engine.suite import read_suite
    from medrobust.core.lineage import suite_hash
    from medrobust.data.store import open_splits
    from medrobust.models.card import is_patient_model, not_fitted, weights_hash
    from medrobust.models.folder import load
    from medrobust.models.patient import load_patient_model
    from medrobust.patients.attack import attack_patients
    from medrobust.patients.subsets import patient_groups

    params = load_params()
    outs = AttackOutputs(args.records, args.metrics, args.curve)
    images, suite = open_splits(args.prepared, args.split), read_suite(args.suite)
    made_on = {"weights": weights_hash(args.model), **images.hashes, "suite": suite_hash(suite)}
    if reason := not_fitted(args.model):
        write_not_fitted(outs, reason, made_on)
        return
    settings: dict[str, Any] = {
        "bit_depth": images.store.header.bit_depth, "seed": params.seed, "report": params.report,
        "made_on": made_on,
    }  # fmt: skip
    if is_patient_model(args.model):
        model = load_patient_model(args.model, device())
        attack_patients(model, patient_groups(images, "test"), suite, outs, **settings)
    else:
        train, test = images.subset("train"), images.subset("test")
        run_suite(load(args.model, device()), test, suite, outs, train=train, **settings)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"attack-{args.name}", parallel=True, entries=read_entries(args.suite / "suite.json"))
