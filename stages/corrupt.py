"""Evaluate a backbone's models on corrupted test images: motion, noise, exposure, ... (some seconds per model)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_empty
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("switch", "suite", "prepared", "split"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("models", "metrics", "tables"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    parser.add_argument("--backbone", required=True)
    return parser.parse_args()


def main() -> None:
    """Evaluate the clean and the adversarially trained model; write empty outs if `models.B.corrupt` is off."""
    if not read_json(args.switch)["corrupt"]:
        write_empty(*args.metrics, *args.tables)
        return
    from medrobust.corruptions.run import CorruptionOutputs, evaluate_corruptions
    from medrobust.data.store import open_splits
    from medrobust.models.card import weights_hash
    from medrobust.models.checkpoint import load

    params, images, suite = load_params(), open_splits(args.prepared, args.split), read_json(args.suite)
    test = images.subset("test")
    for folder, metrics, table in zip(args.models, args.metrics, args.tables, strict=True):
        made_on = {"weights": weights_hash(folder), **images.hashes}
        evaluate_corruptions(
            load(folder, device()), test, suite, CorruptionOutputs(metrics, table), seed=params.seed,
            report=params.report, made_on=made_on,
        )  # fmt: skip


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"corrupt-{args.backbone}", entries=read_entries(args.suite))
