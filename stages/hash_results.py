"""Hash what the cells of params.yaml have written, for the stages that read all of it (a second).

In the same folders there may be files of backbones and suites that were removed. A stage that depends on the
hashes does not run for those. One function per kind of result; each DVC stage runs one of them.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from medrobust.core.params.schema import REGIMES, load_params
from medrobust.core.records import file_hash, read_json, write_json
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {
        checkpoints: ["backbones", "models", "tuned", "chosen"], attempts: [], guards: ["backbones", "guards"],
        tables: ["backbones", "predictions", "attacks", "corrupted", "transferred"],
    }  # fmt: skip
    for function, names in paths.items():
        options = commands.add_parser(function.__name__)
        options.set_defaults(run=function)
        for name in (*names, "out"):
            options.add_argument(f"--{name}", type=Path, required=True)
        if function is attempts:
            options.add_argument("--records", type=Path, nargs="+", required=True, help="one folder per model")
    return parser.parse_args()


def checkpoints() -> None:
    """Hashes of all cards, which hold the hashes of the weights, and of the chosen hyper-parameters."""
    backbones = read_json(args.backbones)
    _write(args.out, [args.models / name / regime / "card.json" for name in backbones for regime in REGIMES])
    _write(args.chosen, [args.tuned / name / "best.json" for name in backbones])


def attempts() -> None:
    """Hashes of the tables of attempts, one per model and suite."""
    params = load_params()
    _write(args.out, [folder / f"{suite}.parquet" for folder in args.records for suite in params.attacks.suites])


def guards() -> None:
    """Hashes of the guards' cards, which hold the hashes of the detectors; a model without a guard has no card."""
    params = load_params()
    names = [*_models(), *(f"ensemble-{regime}" for regime in params.detect.ensemble)]
    cards = [args.guards / name / "card.json" for name in names]
    _write(args.out, [path for path in cards if path.is_file()])


def tables() -> None:
    """Hashes of the tables that the report reads: answers to clean, attacked and corrupted images and patients."""
    params, models = load_params(), _models()
    methods = [f"methods/{name}" for name in params.ensemble.attacked]
    attacked = [*models, f"ensemble-{params.ensemble.regime}", *methods]
    answers = [*models, "ensemble", *(f"patients/{name}" for name in models)]
    paths = [args.predictions / f"{name}.parquet" for name in answers]
    paths += [args.attacks / name / f"{suite}.parquet" for name in attacked for suite in params.attacks.suites]
    patients = [f"{name}-{suite}.parquet" for name in models for suite in params.patient.suites]
    paths += [args.attacks / "patients" / name for name in patients]
    paths += [folder / f"{name}.parquet" for folder in (args.corrupted, args.transferred) for name in models]
    _write(args.out, paths)


def _models() -> list[str]:
    """`<backbone>-<regime>` of every model except the ensemble."""
    return [f"{name}-{regime}" for name in read_json(args.backbones) for regime in REGIMES]


def _write(out: Path, paths: Iterable[Path]) -> None:
    write_json(out, {path.as_posix(): file_hash(path) for path in paths})


if __name__ == "__main__":
    args = parse()
    run_stage(args.run, f"hash-{args.out.stem}")
