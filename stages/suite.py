"""Check an attack suite and fix what it stands for: writes data/suites/S/suite.json (a few seconds)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.records import write_json
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Resolve the suite."""
    from medrobust.attacks.engine.suite import resolve_suite

    params = load_params()
    write_json(args.out, resolve_suite(args.suite, params.attacks.suites[args.suite]))


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"suite-{args.suite}")
