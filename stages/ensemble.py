"""Fit the vote on validation images, clean and attacked, and compare the methods (twenty seconds on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_metrics, write_table
from medrobust.core.runtime import device, run_stage, say


def main() -> None:
    """Fit, evaluate on test, and write."""
    from medrobust.core.metrics import classification_summary, dvc_metrics
    from medrobust.data.store import open_splits
    from medrobust.ensembling.compare import compare
    from medrobust.ensembling.fit import answers, ask, facts_of, fit_rule, named
    from medrobust.ensembling.save_all_methods import save_all_methods
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
    sample = ask(members, val, params.adv, params.seed)
    rule = fit_rule(sample, params.ensemble)
    facts = facts_of(list(folders), rule, sample, params.ensemble)
    say(facts["fitted_on"])
    save_ensemble(args.out, folders, rule, facts)
    votes = predict_all(members, test, None, members[0], params.seed)
    logprobs = answers(rule, votes)
    write_table(args.predictions, predictions_table(test, "test", logprobs))
    summary = classification_summary(
        test.labels,
        logprobs,
        test.patients,
        test.classes,
        ordered=images.store.header.ordered,
        resamples=params.report.bootstrap,
        confidence=params.report.confidence,
    )
    found = compare(sample, test, votes, params.ensemble, params.report)
    record = {**facts, **named(list(folders), rule), **summary, "methods": found.records}
    write_metrics(args.metrics, record, dvc_metrics(summary))
    save_all_methods(args.methods, folders, found, sample, params.ensemble)


if __name__ == "__main__":
    run_stage(main, "ensemble")
