"""Fix what other stages depend on, one function per DVC stage: params, checked, and the code that they name."""

import argparse
from pathlib import Path

from medrobust.attacks.engine.suite import resolve_suite, suite_hashes, write_surrogate
from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.records import atomic_dir, write_json
from medrobust.core.runtime import run_stage
from medrobust.corruptions.resolve import resolve_corruptions
from medrobust.detection.plan import make_plan
from medrobust.report.repeated_table import write_repeated


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {
        suite: ["code", "name"], surrogate: ["model"], settings: ["code", "split"], corruptions: ["code"],
        detection: ["code", "suites", "hashes"], repeated: ["table", "over"],
    }  # fmt: skip
    for function, names in paths.items():
        options = commands.add_parser(function.__name__)
        options.set_defaults(run=function)
        for name in (*names, "out"):
            options.add_argument(f"--{name}", type=str if name in ("name", "over") else Path, required=True)
    return parser.parse_args()


def suite() -> None:
    """One attack suite: hyper-parameters checked, and the hashes of its attacks' code."""
    params = load_params()
    write_json(args.out, resolve_suite(args.name, params.attacks.suites[args.name], read_entries(args.code)))


def surrogate() -> None:
    """The weights that a suite's surrogate has."""
    write_surrogate(args.model, args.out)


def settings() -> None:
    """The settings of every backbone, one file per stage that depends on them, and the names of all backbones."""
    from medrobust.models.trial import try_backbone
    from medrobust.training.resolve import check_split, resolve_settings

    params, code = load_params(), read_entries(args.code)
    with atomic_dir(args.out) as folder:
        for backbone, model in params.models.items():
            found = resolve_settings(backbone, model, params.train, params.adv, params.tune, code)
            check_split(found, args.split)
            try_backbone(backbone, model)
            contents = {stage: resolved.model_dump() for stage, resolved in found.items()} | model.switches()
            for stage, content in contents.items():
                write_json(folder / backbone / f"{stage}.json", content)
        write_json(folder / "backbones.json", list(params.models))


def detection() -> None:
    """The suites and detectors that detection uses; and hashes of all suites, with which results are compared."""
    params = load_params()
    write_json(args.out, make_plan(params.detect, args.suites, read_entries(args.code)))
    write_json(args.hashes, suite_hashes(args.suites, params.attacks.suites))


def corruptions() -> None:
    """The corruptions that models are evaluated on, and the hashes of their code."""
    params = load_params()
    write_json(args.out, resolve_corruptions(params.corruptions, read_entries(args.code)))


def repeated() -> None:
    """A table of repeated runs, checked; whether it belongs to this run is known when all results are."""
    write_repeated(args.table, args.over, args.out)


if __name__ == "__main__":
    args = parse()
    run_stage(args.run, f"{args.command}-{'-'.join(args.out.with_suffix('').parts[-2:])}")
