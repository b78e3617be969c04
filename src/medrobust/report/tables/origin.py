"""The hashes that identify a run, and how to find the commits that hold it."""

from medrobust.report.run import Run
from medrobust.report.tables.table import Table


def run_hashes(run: Run) -> list[str]:
    """The hashes of the code and of the prepared data, and the command that finds the commits of this code."""
    if run.code is None:
        code = "The hash of the code is unknown: there is no folder data/code."
    else:
        code = (
            f"Code: md5 {run.code} (of the folder data/code in dvc.lock). Commits with this code: "
            f"git log --oneline -S{run.code} -- dvc.lock"
        )
    return [code, f"Prepared data: sha256 {run.header.get('sha256', 'unknown')}."]


def origin_table(run: Run) -> Table:
    """The hash of each result in dvc.lock."""
    names = ["data/prepared", "data/split.csv"]
    names += [f"data/checkpoints/{backbone}/{regime}" for backbone, regime in run.training.cards]
    names += ["data/ensemble"]
    hashes = [(name, run.provenance.md5(name)) for name in names] if run.provenance else []
    note = "Commits whose dvc.lock holds a result: git log --oneline -S<md5> -- dvc.lock"
    return Table(
        "Hashes of the results in dvc.lock", ["result", "md5"], [[n, md5] for n, md5 in hashes if md5], note
    )
