"""Ask whether the evaluations of the ensemble can be believed (under half a minute on two cores)."""

from medrobust.checklist.cell import check_vote, parse
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Check the vote in force."""
    from medrobust.models.ensemble import load_ensemble, load_members

    params = load_params()
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
    run_stage(main, "check_ensemble")
