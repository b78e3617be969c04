"""The one word on the committed results of a pull request, and who has to act."""

from dataclasses import dataclass, field

from tools.comment.workflow_run import WorkflowRun

COMMITTED, NOT_COMMITTED, BASE_OUTDATED, NONE, UNKNOWN = (
    "committed", "not-committed", "base-outdated", "none", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether dvc.lock, metrics and plots as committed are those that the pipeline gives.

    Attributes:
        word: one of the five above.
        stages: outdated stages of the pull request's commit, with the reason; only if results are outdated.
        base: the same of the base branch.
    """

    word: str
    stages: dict[str, str] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why stages are outdated, each reason once."""
        return list(dict.fromkeys(self.stages.values()))


def judge(run: WorkflowRun, this: dict[str, str] | None, base: dict[str, str] | None, *, touched: bool) -> Verdict:
    """Decide by the run if it was whole, else by what `freshness.outdated` says of both commits.

    Args:
        run: of the workflow.
        this: outdated stages of the pull request's commit; None if that is not known or there are no results.
        base: the same of the base branch.
        touched: whether the pull request touches anything that decides results.
    """
    if this is None and not run.reproduced:
        return Verdict(UNKNOWN)
    if not (run.differ if run.reproduced else this):
        return Verdict(COMMITTED)
    # Results that the pull request shares with the base are not its fault.
    return Verdict(NOT_COMMITTED if touched else BASE_OUTDATED, this or {}, base or {})
