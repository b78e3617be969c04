"""Put the suites that detection uses into one file, so that other suites re-run no detection (a second)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import read_json, write_json
from medrobust.runtime import run_stage


def main() -> None:
    """Copy the resolved suites that `detect.suites` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("suites", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    write_json(args.out, {name: read_json(args.suites / f"{name}.json") for name in params.detect.suites})


if __name__ == "__main__":
    run_stage(main, "detect_suites")
