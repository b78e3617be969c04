"""Attack with all steps: each model, for the transfer matrix (about 10 s for 40 images and one step), or patients.

One function per kind of input; each DVC stage runs one of them.
"""

import argparse
from pathlib import Path
from typing import Any

from medrobust.core.code import read_entries
from medrobust.core.lineage import MADE_ON, TABLES, suite_hash, table_hashes
from medrobust.core.params.schema import REGIMES, load_params
from medrobust.core.records import read_json, write_metrics, write_table
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {matrix: ["backbones", "models", "ensemble", "metrics", "matrix"], patients: ["model"]}
    for function, names in paths.items():
        options = commands.add_parser(function.__name__)
        options.set_defaults(run=function)
        for name in (*names, "prepared", "split", "suite", "scores"):
            options.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def matrix() -> None:
    """Compute and write the transfer matrix."""
    from medrobust.attacks.engine.suite import read_suite
    from medrobust.data.store import open_splits
    from medrobust.ensembling.transfer import dvc_metrics, empty_transfer, transfer
    from medrobust.models.card import weights_hash
    from medrobust.models.checkpoint import load
    from medrobust.models.ensemble import active_members, load_ensemble

    params = load_params()
    images = open_splits(args.prepared, args.split)
    made_on: dict[str, Any] = {**images.hashes, "suites": {}, "models": {}}
    table, facts, scores = empty_transfer()
    if params.transfer.images:
        cells = [(backbone, regime) for backbone in read_json(args.backbones) for regime in REGIMES]
        folders, suite = {"-".join(cell): args.models.joinpath(*cell) for cell in cells}, read_suite(args.suite)
        table, facts, scores = transfer(
            {name: load(folder, device()) for name, folder in folders.items()},
            (args.ensemble.name, load_ensemble(args.ensemble, device())),
            active_members(args.ensemble),
            images.subset("test"),
            suite,
            params=params.transfer,
            report=params.report,
            seed=params.seed,
            train=images.subset("train"),
        )
        every = {**folders, args.ensemble.name: args.ensemble}
        made_on["models"] = {name: weights_hash(folder) for name, folder in every.items()}
        made_on["suites"] = {suite["name"]: suite_hash(suite)}
    scores.attrs[MADE_ON] = made_on
    write_table(args.matrix, table)
    write_table(args.scores, scores)
    record = {**facts, MADE_ON: made_on, TABLES: table_hashes(args.matrix)}
    write_metrics(args.metrics, record, dvc_metrics(facts, args.ensemble.name))


def patients() -> None:
    """Write the answers of one model for attacked patients."""
    from medrobust.data.store import open_splits
    from medrobust.patients.all_steps import write_attacked_predictions

    params = load_params()
    splits = open_splits(args.prepared, args.split)
    write_attacked_predictions(args.model, splits, args.suite, args.scores, params.transfer, seed=params.seed)


if __name__ == "__main__":
    args = parse()
    name = f"transfer-patient-{args.model.name}" if args.run is patients else "transfer"
    run_stage(args.run, name, entries=read_entries(args.suite / "suite.json"))
