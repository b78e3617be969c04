"""Give the ensemble its detectors and measure what they are worth (as detect, times the members)."""

from medrobust.core.params.schema import load_params
from medrobust.core.records import file_hash
from medrobust.core.runtime import run_stage
from medrobust.detection.cell import detect_cell, parse


def main() -> None:
    """Guard the vote; its card holds the hashes of all members."""
    from medrobust.models.ensemble import load_ensemble

    params = load_params()
    weights = file_hash(args.model / "card.json")
    detect_cell(load_ensemble, args, weights=weights, seed=params.seed, params=params.detect, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"detect_ensemble-{args.name}")
