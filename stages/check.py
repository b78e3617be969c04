"""Ask whether the evaluations of a backbone's models can be believed (some seconds a model on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.records import read_table
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("prepared", "split", "suites"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("models", "records", "metrics"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    parser.add_argument("--backbone", required=True)
    return parser.parse_args()


def main() -> None:
    """Check the clean and the adversarially trained model, each the other's sibling."""
    from medrobust.checklist.run import Subject, check_model, conclude, read_evaluations
    from medrobust.data.store import ImageStore
    from medrobust.models.checkpoint import load

    params = load_params()
    store = ImageStore.open(args.prepared)
    subset = store.subset(read_table(args.split, keep_default_na=False), "test")
    models = [load(folder, device()) for folder in args.models]
    found = {}
    for place, (records, path) in enumerate(zip(args.records, args.metrics, strict=True)):
        suites, tables = read_evaluations(list(params.attacks.suites), args.suites, records)
        subject = Subject(
            model=models[place],
            subset=subset,
            suites=suites,
            attempts=tables,
            adversarial=place == 1,
            siblings={f"{args.backbone}-{args.models[1 - place].name}": models[1 - place]},
            bit_depth=store.header.bit_depth,
        )
        found[path] = check_model(
            subject, eps=params.adv.eps, params=params.attacks, report=params.report, seed=params.seed
        )
    conclude(found, params.attacks.on_invalid)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"check-{args.backbone}")
