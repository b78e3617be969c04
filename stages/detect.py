"""Give one model its detectors and measure what they are worth (see docs/detection.md for the time it takes)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_empty
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "prepared", "split", "plan", "guard", "scores", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--switch", type=Path, help="JSON file: regimes of the backbone that get detectors")
    return parser.parse_args()


def main() -> None:
    """Fit detectors on train, choose thresholds on val, test on test; if switched off, write empty outs."""
    if args.switch and args.model.name not in read_json(args.switch)["regimes"]:
        write_empty(args.guard, args.scores, args.metrics, args.plots / "curves.csv")
        return
    from medrobust.core.lineage import suite_hash
    from medrobust.core.params.detection import DetectParams
    from medrobust.data.store import open_splits
    from medrobust.detection.fitting import Splits
    from medrobust.detection.run import DetectionOutputs, run_detection
    from medrobust.models.card import weights_hash
    from medrobust.models.folder import load

    params, plan = load_params(), read_json(args.plan)
    images = open_splits(args.prepared, args.split)
    run_detection(
        load(args.model, device()),
        Splits(images.subset("train"), images.subset("val"), images.subset("test"), params.seed),
        plan,
        DetectionOutputs(args.guard, args.scores, args.metrics, args.plots),
        ordered=images.store.header.ordered,
        params=DetectParams.model_validate({**plan["detect"], "ensemble": []}),
        report=params.report,
        made_on={
            "weights": weights_hash(args.model),
            **images.hashes,
            "suites": {name: suite_hash(suite) for name, suite in plan["suites"].items()},
        },
    )


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"detect-{args.name}", entries=read_entries(args.plan))
