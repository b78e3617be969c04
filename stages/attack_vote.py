"""Attack a way to vote that is not in force, end to end as the one that is (under a minute on two cores)."""

from medrobust.attacks.engine.cell import attack_cell, empty_cell, parse
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Run the suite on the test images; a method that validation did not allow is said to be so."""
    from medrobust.models.ensemble import impossible, load_ensemble

    params = load_params()
    if reason := impossible(args.model):
        empty_cell(args, reason)
    else:
        attack_cell(load_ensemble, args, seed=params.seed, report=params.report)


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"attack_vote-{args.name}", parallel=True)
