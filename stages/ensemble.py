"""Fit the ensemble on validation images, clean and attacked, and compare the methods (about 20 s on two cores)."""

import argparse
from pathlib import Path
from typing import Any

from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_metrics, write_table
from medrobust.core.runtime import device, run_stage, say


def main() -> None:
    """Fit, evaluate on test images, and write."""
    from medrobust.core.calibration import fit_temperature
    from medrobust.core.lineage import MADE_ON
    from medrobust.core.metrics import classification_summary, dvc_metrics
    from medrobust.data.store import open_splits
    from medrobust.ensembling.compare import compare
    from medrobust.ensembling.fit import fit_combination, fit_summary, parameters_by_member, predict_validation
    from medrobust.ensembling.save_all_methods import save_all_methods
    from medrobust.models.card import weights_hash
    from medrobust.models.checkpoint import load
    from medrobust.models.ensemble import save_ensemble
    from medrobust.models.predict import predict_all, predictions_table

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("backbones", "models", "prepared", "split", "out", "methods", "predictions", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    images = open_splits(args.prepared, args.split)
    cells = params.ensemble.cells(read_json(args.backbones))
    folders = {name: args.models / backbone / regime for name, (backbone, regime) in cells.items()}
    members = [load(folder, device()) for folder in folders.values()]
    val, test = images.subset("val"), images.subset("test")
    predictions = predict_validation(members, val, params.adv, params.seed)
    combination = fit_combination(predictions, params.ensemble)
    facts = fit_summary(list(folders), combination, predictions, params.ensemble)
    facts["temperature"] = fit_temperature(combination.combine(predictions.clean), val.labels)
    say(facts["fitted_on"])
    save_ensemble(args.out, folders, combination, facts)
    test_logprobs = predict_all(members, test, None, members[0], params.seed)
    logprobs = combination.combine(test_logprobs)
    made_on: dict[str, Any] = {"weights": weights_hash(args.out), **images.hashes}
    table = predictions_table(test, "test", logprobs)
    table.attrs[MADE_ON] = made_on
    write_table(args.predictions, table)
    ordered, report = images.store.header.ordered, params.report
    summary = classification_summary(
        test.labels, logprobs, test.patients, test.classes, ordered=ordered, resamples=report.bootstrap,
        confidence=report.confidence,
    )  # fmt: skip
    comparison = compare(predictions, test, test_logprobs, params.ensemble, report)
    by_member = parameters_by_member(list(folders), combination)
    save_all_methods(args.methods, folders, comparison, predictions, params.ensemble)
    made_on["methods"] = {name: weights_hash(args.methods / name) for name in comparison.records}
    made_on["models"] = {name: weights_hash(folder) for name, folder in folders.items()}
    record = {**facts, **by_member, **summary, "methods": comparison.records, MADE_ON: made_on}
    write_metrics(args.metrics, record, dvc_metrics(summary))


if __name__ == "__main__":
    run_stage(main, "ensemble")
