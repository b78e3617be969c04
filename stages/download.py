"""Fetch the published data set: reads params `data` and `seed`, writes data/raw (seconds for the phantom)."""

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
    return parser.parse_args()


def main() -> None:
    """Fetch or generate the raw data."""
    from medrobust.data.prepare import download

    params = load_params()
    download(params.data, args.out, params.seed)


if __name__ == "__main__":
    args = parse()
    run_stage(main, "download", entries=read_entries(args.sources))
