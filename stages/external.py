"""Evaluate models on external data without training (seconds to a minute), or take over such a result."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import REGIMES, load_params
from medrobust.core.records import atomic_dir, read_json
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {
        evaluate: ["data", "prepared", "split", "plan", "detection", "tables"],
        adopt: ["file", "backbones", "models", "ensemble", "metrics"],
    }  # fmt: skip
    for function, names in paths.items():
        options = commands.add_parser(function.__name__)
        options.set_defaults(run=function)
        for name in names:
            options.add_argument(f"--{name}", type=Path, required=True)
        options.add_argument("--name", required=True)
        if function is evaluate:
            for name in ("networks", "guards", "patients", "metrics"):
                options.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    return parser.parse_args()


def evaluate() -> None:
    """Both models of a backbone on one external set."""
    from medrobust.data.external import as_test_set
    from medrobust.data.store import ImageStore, open_splits
    from medrobust.external.evaluate import Settings
    from medrobust.external.run import ModelFolders, evaluate_model

    params = load_params()
    own, store = open_splits(args.prepared, args.split), ImageStore.open(args.data)
    report = params.report
    settings = Settings(
        own.store.header.ordered, report.bootstrap, report.confidence, params.seed, own.subset("train")
    )
    made_on = {**own.hashes, "external": store.header.sha256}
    external, plan = as_test_set(store, own), read_json(args.plan)
    with atomic_dir(args.tables) as tables:
        for network, guard, patient, metrics in zip(
            args.networks, args.guards, args.patients, args.metrics, strict=True
        ):
            folders = ModelFolders(network, guard, patient)
            evaluate_model(folders, external, plan, settings, made_on, metrics, tables)


def adopt() -> None:
    """A result that `medrobust evaluate` wrote for a model of this run."""
    from medrobust.external.adopt import adopt_result

    models = [args.models / name / regime for name in read_json(args.backbones) for regime in REGIMES]
    adopt_result(args.file, args.name, [*models, args.ensemble], args.metrics)


if __name__ == "__main__":
    args = parse()
    used = read_entries(args.plan, args.detection) if args.run is evaluate else {}
    run_stage(args.run, f"external-{args.name}", entries=used)
