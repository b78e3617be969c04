"""Resolve a backbone's training settings, its overrides in place (a second)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Check, resolve and write."""
    from medrobust.core.records import atomic_dir, write_json
    from medrobust.training.resolve import check_classes, resolve_settings

    params = load_params()
    model = params.models[args.backbone]
    found = resolve_settings(args.backbone, model, params.train, params.adv, params.tune)
    check_classes(found, args.split)
    with atomic_dir(args.out) as temporary:
        for stage, settings in found.items():
            write_json(temporary / f"{stage}.json", settings.model_dump())


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"settings-{args.backbone}")
