"""Give one model its detectors and measure what they are worth (see docs/detection.md for the time it takes)."""

from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json
from medrobust.core.runtime import run_stage
from medrobust.detection.cell import detect_cell, parse


def main() -> None:
    """Guard the model."""
    from medrobust.models.checkpoint import load

    params = load_params()
    weights = read_json(args.model / "card.json")["sha256"]
    detect_cell(load, args, weights=weights, seed=params.seed, params=params.detect, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"detect-{args.name}")
