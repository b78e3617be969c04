"""Hash what the cells of params.yaml have written, for the stages that read all of it (a second).

In the same folders there may be files of backbones and suites that were removed. A stage that depends on the
hashes does not run for those. One DVC stage per subcommand and model, because each has other dependencies.
"""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.records import file_hash, read_json, write_json
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    options = commands.add_parser("checkpoints")
    for name in ("backbones", "models", "tuned", "out", "chosen"):
        options.add_argument(f"--{name}", type=Path, required=True)
    options = commands.add_parser("attempts")
    options.add_argument("--records", type=Path, nargs="+", required=True, help="one folder per model")
    options.add_argument("--out", type=Path, required=True)
    options = commands.add_parser("guards")
    for name in ("backbones", "guards", "out"):
        options.add_argument(f"--{name}", type=Path, required=True)
    options = commands.add_parser("tables")
    for name in ("backbones", "predictions", "attacks", "corrupted", "out"):
        options.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def checkpoints() -> None:
    """Hashes of all cards, which hold the hashes of the weights, and of the chosen hyper-parameters."""
    backbones = read_json(args.backbones)
    cards = [args.models / name / regime / "card.json" for name in backbones for regime in ("clean", "adv")]
    write_json(args.out, {path.as_posix(): file_hash(path) for path in cards})
    chosen = [args.tuned / name / "best.json" for name in backbones]
    write_json(args.chosen, {path.as_posix(): file_hash(path) for path in chosen})


def attempts() -> None:
    """Hashes of the tables of attempts, one per model and suite."""
    params = load_params()
    tables = [folder / f"{suite}.parquet" for folder in args.records for suite in params.attacks.suites]
    write_json(args.out, {path.as_posix(): file_hash(path) for path in tables})


def guards() -> None:
    """Hashes of the guards' cards, which hold the hashes of the detectors; a model without a guard has no card."""
    params = load_params()
    names = [f"{name}-{regime}" for name in read_json(args.backbones) for regime in ("clean", "adv")]
    names += [f"ensemble-{regime}" for regime in params.detect.ensemble]
    cards = [args.guards / name / "card.json" for name in names]
    write_json(args.out, {path.as_posix(): file_hash(path) for path in cards if path.is_file()})


def tables() -> None:
    """Hashes of the tables that the report reads: predictions, attempts, and predictions on corrupted images."""
    params = load_params()
    models = [f"{name}-{regime}" for name in read_json(args.backbones) for regime in ("clean", "adv")]
    attacked = [
        *models,
        f"ensemble-{params.ensemble.regime}",
        *(f"methods/{each}" for each in params.ensemble.attacked),
    ]
    paths = [args.predictions / f"{name}.parquet" for name in (*models, "ensemble")]
    paths += [args.attacks / name / f"{suite}.parquet" for name in attacked for suite in params.attacks.suites]
    paths += [args.corrupted / f"{name}.parquet" for name in models]
    write_json(args.out, {path.as_posix(): file_hash(path) for path in paths})


if __name__ == "__main__":
    args = parse()
    commands = {"checkpoints": checkpoints, "attempts": attempts, "guards": guards, "tables": tables}
    run_stage(commands[args.command], f"hash-{args.out.stem}")
