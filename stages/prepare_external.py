"""Fetch and decode an external data set: reads `external.sets.NAME`, writes data/external/NAME (as `prepare`)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("sources", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def main() -> None:
    """Write the prepared images of the set."""
    from medrobust.data.external import prepare_external

    params = load_params()
    prepare_external(args.name, params.external.sets[args.name], params.data, args.out, params.seed)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"prepare-external-{args.name}", entries=read_entries(args.sources))
