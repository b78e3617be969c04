"""Ask the same of a way to vote that is not in force (under half a minute on two cores)."""

from medrobust.checklist.cell import check_vote, parse
from medrobust.core.params.schema import load_params
from medrobust.core.records import write_metrics
from medrobust.core.runtime import run_stage


def main() -> None:
    """Check the vote; of a method that validation did not allow, say so."""
    from medrobust.models.ensemble import impossible, load_ensemble, load_members

    params = load_params()
    if reason := impossible(args.model):
        write_metrics(args.metrics, {"impossible": reason}, {"verdict": "impossible"})
        return
    check_vote(
        load_ensemble,
        load_members,
        args,
        adversarial=params.ensemble.regime == "adv",
        eps=params.adv.eps,
        params=params.attacks,
        report=params.report,
        seed=params.seed,
    )


if __name__ == "__main__":
    args = parse(__doc__)
    run_stage(main, f"check_vote-{args.model.name}")
