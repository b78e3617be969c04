"""Ask whether the evaluations of the ensemble can be believed (under half a minute on two cores)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import read_table
from medrobust.runtime import device, run_stage


def main() -> None:
    """Check the ensemble; its members are its siblings."""
    from medrobust.attacks.checks.run import Subject, check_model, conclude, read_evaluations
    from medrobust.data.store import ImageStore
    from medrobust.ensemble import load_ensemble, load_members

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "prepared", "split", "suites", "records", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    store = ImageStore.open(args.prepared)
    ensemble = load_ensemble(args.model, device())
    suites, tables = read_evaluations(list(params.attacks.suites), args.suites, args.records)
    subject = Subject(
        model=ensemble,
        subset=store.subset(read_table(args.split, keep_default_na=False), "test"),
        suites=suites,
        attempts=tables,
        adversarial=params.ensemble.regime == "adv",
        siblings=load_members(args.model, device()),
        bit_depth=store.header.bit_depth,
    )
    found = check_model(subject, eps=params.adv.eps, params=params.attacks, report=params.report, seed=params.seed)
    conclude({args.metrics: found}, params.attacks.on_invalid)


if __name__ == "__main__":
    run_stage(main, "check_ensemble")
