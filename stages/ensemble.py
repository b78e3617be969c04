"""Fit the weights of the vote on validation images, clean and attacked (about twenty seconds on two cores)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import read_table, write_json, write_table
from medrobust.runtime import device, run_stage


def main() -> None:
    """Fit, evaluate on test, and write."""
    from medrobust.data.store import ImageStore
    from medrobust.ensemble import fit_ensemble, save_ensemble
    from medrobust.evaluation import predict, predictions_table
    from medrobust.metrics import classification_summary
    from medrobust.models.checkpoint import load

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("models", "prepared", "split", "out", "predictions", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    store, table = ImageStore.open(args.prepared), read_table(args.split, keep_default_na=False)
    folders = {name: args.models / name / params.ensemble.regime for name in params.models}
    members = {name: load(folder, device()) for name, folder in folders.items()}
    val, test = store.subset(table, "val"), store.subset(table, "test")
    ensemble, weights = fit_ensemble(members, val, params.adv, params.ensemble.robust_share, params.seed)
    save_ensemble(args.out, weights, folders)
    logprobs = predict(ensemble, test)
    write_table(args.predictions, predictions_table(test, "test", logprobs))
    summary = classification_summary(
        test.labels,
        logprobs,
        test.patients,
        test.classes,
        ordered=store.header.ordered,
        resamples=params.report.bootstrap,
        confidence=params.report.confidence,
    )
    write_json(args.metrics, {"weights": weights, **summary}, digits=4)


if __name__ == "__main__":
    run_stage(main, "ensemble")
