"""Decode every image once: reads data/raw, writes data/prepared (about 40 s for 11,519 JPEGs on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Convert the raw data to one array of images, a manifest and a header."""
    from medrobust.data.prepare import prepare

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    prepare(params.data, args.raw, args.out)


if __name__ == "__main__":
    run_stage(main, "prepare")
