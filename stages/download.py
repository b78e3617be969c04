"""Fetch the published data set: reads params `data` and `seed`, writes data/raw (seconds for the phantom)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Fetch or generate the raw data."""
    from medrobust.data.prepare import download

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    download(params.data, args.out, params.seed)


if __name__ == "__main__":
    run_stage(main, "download")
