"""Fix what other stages depend on: params with overrides in place, checked, and the code that they name (seconds).

One DVC stage per subcommand, because each has other dependencies: `suite`, `surrogate`, `settings`, `detection`.
"""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.records import atomic_dir, write_json
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    paths = {
        "suite": ["code"],
        "surrogate": ["model"],
        "settings": ["code", "split"],
        "detection": ["code", "suites", "hashes"],
    }
    for command, names in paths.items():
        options = commands.add_parser(command)
        for name in (*names, "out"):
            options.add_argument(f"--{name}", type=Path, required=True)
        if command == "suite":
            options.add_argument("--name", required=True)
    return parser.parse_args()


def suite() -> None:
    """One attack suite: hyper-parameters checked, and the hashes of its attacks' code."""
    from medrobust.attacks.engine.suite import resolve_suite

    params = load_params()
    write_json(args.out, resolve_suite(args.name, params.attacks.suites[args.name], read_entries(args.code)))


def surrogate() -> None:
    """The weights that a suite's surrogate has."""
    from medrobust.attacks.engine.suite import write_surrogate

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
            for stage, resolved in found.items():
                write_json(folder / backbone / f"{stage}.json", resolved.model_dump())
            write_json(folder / backbone / "detect.json", {"regimes": model.detect})
            write_json(folder / backbone / "explain.json", {"explain": model.explain})
        write_json(folder / "backbones.json", list(params.models))


def detection() -> None:
    """The suites and detectors that detection uses; and hashes of all suites, with which results are compared."""
    from medrobust.attacks.engine.suite import suite_hashes
    from medrobust.detection.plan import make_plan

    params = load_params()
    write_json(args.out, make_plan(params.detect, args.suites, read_entries(args.code)))
    write_json(args.hashes, suite_hashes(args.suites, params.attacks.suites))


if __name__ == "__main__":
    args = parse()
    command = {"suite": suite, "surrogate": surrogate, "settings": settings, "detection": detection}[args.command]
    run_stage(command, f"{args.command}-{'-'.join(args.out.with_suffix('').parts[-2:])}")
