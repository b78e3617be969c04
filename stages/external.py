"""Evaluate models on external data without training (seconds to a minute), or take over such a result."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import REGIMES, load_params
from medrobust.core.records import atomic_dir, read_json, write_json, write_metrics
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {
        plan: ["suites", "out", "metrics"], adopt: ["file", "backbones", "models", "ensemble", "metrics"],
        evaluate: ["data", "prepared", "split", "plan", "detectors", "tables"],
    }  # fmt: skip
    for function, names in paths.items():
        options = commands.add_parser(function.__name__)
        options.set_defaults(run=function, name="sets")
        for name in names:
            options.add_argument(f"--{name}", type=Path, required=True)
        if function is not plan:
            options.add_argument("--name", required=True)
        if function is evaluate:
            for name in ("networks", "guards", "patients", "metrics"):
                options.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    return parser.parse_args()


def plan() -> None:
    """The suites of each external set, and the names of all sets."""
    from medrobust.external.plan import make_plan

    params = load_params()
    with atomic_dir(args.out) as folder:
        for name, block in params.external.sets.items():
            write_json(folder / f"{name}.json", make_plan(block, args.suites))
    record = {"sets": list(params.external.sets), "evaluated": len(params.external.evaluated)}
    write_metrics(args.metrics, record, {"sets": ", ".join(params.external.names)})


def evaluate() -> None:
    """Both models of a backbone on one external set."""
    from medrobust.data.external import as_test_set
    from medrobust.data.store import ImageStore, open_splits
    from medrobust.external.evaluate import Settings
    from medrobust.external.run import ModelFolders, evaluate_model

    params = load_params()
    own, store, report = open_splits(args.prepared, args.split), ImageStore.open(args.data), params.report
    train = own.subset("train")
    settings = Settings(own.store.header.ordered, report.bootstrap, report.confidence, params.seed, train)
    made_on, external = {**own.hashes, "external": store.header.sha256}, as_test_set(store, own)
    with atomic_dir(args.tables) as tables:
        for *folders, metrics in zip(args.networks, args.guards, args.patients, args.metrics, strict=True):
            model, suites = ModelFolders(*folders), read_json(args.plan)
            evaluate_model(model, external, suites, settings, made_on, metrics, tables)


def adopt() -> None:
    """A result that `medrobust evaluate` wrote for a model of this run."""
    from medrobust.external.adopt import adopt_result

    models = [args.models / name / regime for name in read_json(args.backbones) for regime in REGIMES]
    adopt_result(args.file, args.name, [*models, args.ensemble], args.metrics)


if __name__ == "__main__":
    args = parse()
    used = read_entries(args.plan, args.detectors) if args.run is evaluate else {}
    run_stage(args.run, f"external-{args.name}", entries=used)
