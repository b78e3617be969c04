"""Give one model its detectors and measure what they are worth (see docs/detection.md for the time it takes)."""

from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, write_empty
from medrobust.core.runtime import run_stage
from medrobust.detection.cell import detect_cell, parse


def main() -> None:
    """Fit and test the detectors, or write empty outs if `models.B.detect` does not name the regime."""
    params = load_params()
    backbone, _, regime = args.name.partition("-")
    if regime not in params.models[backbone].detect:
        write_empty(args.guard, args.scores, args.metrics, args.plots / "curves.csv")
        return
    from medrobust.models.checkpoint import load

    weights = read_json(args.model / "card.json")["sha256"]
    detect_cell(load, args, weights=weights, seed=params.seed, params=params.detect, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"detect-{args.name}")
