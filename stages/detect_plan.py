"""Fix which suites and detectors detection uses, so that others re-run none of its cells (a second)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.records import write_json
from medrobust.core.runtime import run_stage


def main() -> None:
    """Write the plan."""
    from medrobust.detection.plan import make_plan

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("suites", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    write_json(args.out, make_plan(params.detect, args.suites))


if __name__ == "__main__":
    run_stage(main, "detect_plan")
