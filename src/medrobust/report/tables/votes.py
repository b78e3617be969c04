"""Ways to vote under attack: members and methods, clean and at every radius of every suite, side by side."""

from collections.abc import Sequence
from typing import Any

from medrobust.report.collect import Folders, Reader, Run, vote_of
from medrobust.report.tables.cells import NONE, Table, ranged, with_interval


def read_votes(run: Run, reader: Reader, folders: Folders, attacked: Sequence[str]) -> None:
    """Read attacks on methods that are not in force, and their checks; what is missing goes into `run.missing`."""
    run.attacked.extend(attacked)
    for method in attacked:
        for suite in run.suites:
            if record := reader.metrics(folders.metrics / "votes" / f"{method}-{suite}.json"):
                run.votes[method, suite] = record
        run.checks[vote_of(method), run.regime] = reader.metrics(
            folders.metrics / "checks" / f"{method}-vote.json"
        )


def attacks_table(run: Run, confidence: float) -> Table:
    """Members and methods, clean and under every suite at every radius."""
    records = [*run.attack.items(), *run.votes.items()]
    grid = [
        (suite, eps)
        for suite in run.suites
        for eps in sorted(
            {eps for key, record in records if key[-1] == suite for eps in record.get("robust_accuracy", {})},
            key=float,
        )
    ]
    rows = [_member(run, name, grid) for name in run.ensemble.get("members", []) if "-" in name]
    rows += [_method(run, name, grid) for name in _names(run)]
    columns = ["who", "clean", *(f"{suite} ε = {eps}" for suite, eps in grid), "checklist"]
    table = Table("Votes and members, clean and attacked", columns, rows, _note(run, confidence))
    return table.warned(confidence, run.fewest())


def _names(run: Run) -> list[str]:
    """Every method that has a record, and those that should have one."""
    in_force = [run.ensemble["method"]] if "method" in run.ensemble else []
    return list(dict.fromkeys([*run.methods, *in_force, *run.attacked]))


def _member(run: Run, name: str, grid: list[tuple[str, str]]) -> list[str]:
    model = (name.partition("-")[0], name.partition("-")[2])
    return [name, with_interval(run.clean(*model), "accuracy"), *_attacked(run, model, grid), run.verdict(*model)]


def _method(run: Run, name: str, grid: list[tuple[str, str]]) -> list[str]:
    """A way to vote; a dash where no suite was to attack it, `missing` where one was and left nothing."""
    record = run.methods.get(name, {})
    if "not_fitted" in record:
        return [vote_of(name), "not possible", *[NONE] * (len(grid) + 1)]
    clean = with_interval(record, "test_accuracy")
    if name == run.ensemble.get("method"):
        return [f"{vote_of(name)} (in force)", clean, *_attacked(run, run.vote(), grid), run.verdict(*run.vote())]
    if name not in run.attacked:
        return [vote_of(name), clean, *[NONE] * (len(grid) + 1)]
    cells = [_robust(run.votes.get((name, suite)), eps) for suite, eps in grid]
    return [vote_of(name), clean, *cells, run.verdict(vote_of(name), run.regime)]


def _attacked(run: Run, model: tuple[str, str], grid: list[tuple[str, str]]) -> list[str]:
    return [_robust(run.attack.get((*model, suite)), eps) for suite, eps in grid]


def _robust(record: dict[str, Any] | None, eps: str) -> str:
    if record is None:
        return "missing"
    interval = record.get("robust_accuracy_ci", {}).get(eps, (None, None))
    return ranged(record.get("robust_accuracy", {}).get(eps), *interval)


def _note(run: Run, confidence: float) -> str:
    """What the numbers are, which methods nobody attacked and how that is done, and why a method has no row."""
    records = [*run.attack.values(), *run.votes.values()]
    tested: dict[str, Any] = next((record for record in records if "n" in record), {})
    sample = f" on {tested['n']} test images of {tested['patients']} patients" if tested else ""
    said = [
        f"Accuracy{sample}; brackets are {confidence:.0%} intervals over whole patients. Suites attack a vote end "
        "to end: one image for all members, the gradient through all that vote."
    ]
    known = (run.ensemble.get("method"), *run.attacked)
    left = [name for name, record in run.methods.items() if name not in known and "not_fitted" not in record]
    if left and run.ensemble:
        wanted = ",".join((*run.attacked, *left))
        said.append(f"Not attacked: {', '.join(left)} (dvc exp run -S 'ensemble.attacked=[{wanted}]').")
    reasons: dict[str, list[str]] = {}
    for name, record in run.methods.items():
        if "not_fitted" in record:
            reasons.setdefault(record["not_fitted"], []).append(name)
    said += [f"Not possible, {' and '.join(names)}: {reason}." for reason, names in reasons.items()]
    return " ".join(said)
