"""Attack the ensemble end to end, one image for all members (under a minute on two cores)."""

from medrobust.attacks.engine.cell import attack_cell, parse
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Run the suite on the test images."""
    from medrobust.models.ensemble import load_ensemble

    params = load_params()
    attack_cell(load_ensemble, args, seed=params.seed, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"attack_ensemble-{args.name}", parallel=True)
