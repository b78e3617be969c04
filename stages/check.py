"""Check whether the evaluations of models can be trusted (a few seconds per model on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("prepared", "split", "suites"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("models", "records", "metrics"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, help="one per model")
    return parser.parse_args()


def main() -> None:
    """Check each model; its siblings are the other models and, for an ensemble, its members."""
    from medrobust.checklist.run import (
        CheckedModel,
        check_model,
        check_predictions,
        read_evaluations,
        write_records,
    )
    from medrobust.data.store import open_splits
    from medrobust.models.card import is_adversarial, not_fitted, weights_hash
    from medrobust.models.folder import load, members

    params = load_params()
    images = open_splits(args.prepared, args.split)
    reasons = {folder: not_fitted(folder) for folder in args.models}
    models = {folder: load(folder, device()) for folder, reason in reasons.items() if not reason}
    results = {}
    for folder, records, path in zip(args.models, args.records, args.metrics, strict=True):
        made_on = {"weights": weights_hash(folder), **images.hashes}
        if reason := reasons[folder]:
            results[path] = {"not_fitted": reason, MADE_ON: {**made_on, "suites": {}}}
            continue
        suites, tables = read_evaluations(list(params.attacks.suites), args.suites, records, made_on)
        others = {f"{other.parent.name}-{other.name}": models[other] for other in models if other != folder}
        checked = CheckedModel(
            model=models[folder],
            subset=images.subset("test"),
            suites=suites,
            attempts=tables,
            adversarial=is_adversarial(folder),
            siblings=others | members(folder, device()),
            bit_depth=images.store.header.bit_depth,
        )
        check_predictions(checked, records)
        results[path] = check_model(
            checked, eps=params.adv.eps, params=params.attacks, report=params.report, seed=params.seed
        )
        hashes = {name: suite_hash(suite) for name, suite in suites.items()}
        results[path][MADE_ON] = {**made_on, "suites": hashes}
    write_records(results, params.attacks.on_invalid)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"check-{args.metrics[0].stem}", entries=read_entries(*args.suites.glob("*/suite.json")))
