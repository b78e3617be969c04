"""Fix which weights a suite's surrogate has: writes data/suites/S/B-R.json (a second)."""

import argparse
from pathlib import Path

from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Hash the weights."""
    from medrobust.attacks.engine.resolved import write_surrogate

    write_surrogate(args.model, args.out)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"surrogate-{args.out.parent.name}-{args.out.stem}")
