"""Decode every image once: reads data/raw, writes data/prepared (about 40 s for 11,519 JPEGs on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("sources", "raw", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Convert the raw data to one array of images, a manifest and a header."""
    from medrobust.data.prepare import prepare

    params = load_params()
    prepare(params.data, args.raw, args.out)


if __name__ == "__main__":
    args = parse()
    run_stage(main, "prepare", entries=read_entries(args.sources))
