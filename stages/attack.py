"""Attack one model with one suite: records, metrics and curve (seconds to a minute a cell on two cores)."""

from medrobust.attacks.engine.cell import attack_cell, parse
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Run the suite on the test images."""
    from medrobust.models.checkpoint import load

    params = load_params()
    attack_cell(load, args, seed=params.seed, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"attack-{args.name}", parallel=True)
