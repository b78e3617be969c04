"""Members and ensemble methods under attack: clean and at every radius of every suite, side by side."""

from medrobust.report.run import Model, Run, method_label
from medrobust.report.tables.accuracy import robust_accuracy
from medrobust.report.tables.constant import ACCURACY, constant_row
from medrobust.report.tables.table import NONE, Table, with_interval
from medrobust.report.templates import table_note

#: A suite and one of its radii.
Column = tuple[str, str]


def attacked_methods_table(run: Run, confidence: float) -> Table:
    """Accuracy of members and methods, clean and under every suite at every radius."""
    records = [*run.attacks.records.items(), *run.ensemble.attacks.items()]
    grid = [
        (suite, eps)
        for suite in run.suites
        for eps in sorted(
            {eps for key, record in records if key[-1] == suite for eps in record.get("robust_accuracy", {})},
            key=float,
        )
    ]
    rows = [_member(run, name, grid) for name in run.ensemble.record.get("members", []) if "-" in name]
    rows += [_method(run, name, grid) for name in _names(run)]
    if rows:
        rows.append(constant_row(run, [], [*[ACCURACY] * (len(grid) + 1), NONE]))
    columns = ["model", "clean", *(f"{suite} ε = {eps}" for suite, eps in grid), "checklist"]
    table = Table("Members and ensemble methods, clean and attacked", columns, rows, _note(run, confidence))
    return table.with_warning()


def _names(run: Run) -> list[str]:
    """Every method that has a record, and those that should have one."""
    selected = [run.ensemble.record["method"]] if "method" in run.ensemble.record else []
    return list(dict.fromkeys([*run.ensemble.methods, *selected, *run.ensemble.attacked]))


def _member(run: Run, name: str, grid: list[Column]) -> list[str]:
    model = (name.partition("-")[0], name.partition("-")[2])
    clean = with_interval(run.clean_record(*model), "accuracy")
    return [name, clean, *_attacked(run, model, grid), run.worst_verdict(*model)]


def _method(run: Run, name: str, grid: list[Column]) -> list[str]:
    """The row of a method: dashes if no suite had to attack it, `missing` if one had to and left no record."""
    ensemble, label = run.ensemble, method_label(name)
    record = ensemble.methods.get(name, {})
    if "not_fitted" in record:
        return [label, "not fitted", *[NONE] * (len(grid) + 1)]
    clean = with_interval(record, "test_accuracy")
    if name == ensemble.record.get("method"):
        verdict = run.worst_verdict(*ensemble.model)
        return [f"{label} (selected)", clean, *_attacked(run, ensemble.model, grid), verdict]
    if name not in ensemble.attacked:
        return [label, clean, *[NONE] * (len(grid) + 1)]
    cells = [robust_accuracy(ensemble.attacks.get((name, suite)), eps) for suite, eps in grid]
    return [label, clean, *cells, run.worst_verdict(label, ensemble.regime)]


def _attacked(run: Run, model: Model, grid: list[Column]) -> list[str]:
    return [robust_accuracy(run.attacks.records.get((*model, suite)), eps) for suite, eps in grid]


def _note(run: Run, confidence: float) -> str:
    """What the numbers are, which methods were not attacked and how to do it, and why a method was not fitted."""
    ensemble = run.ensemble
    records = [*run.attacks.records.values(), *ensemble.attacks.values()]
    known = (ensemble.record.get("method"), *ensemble.attacked)
    left = []
    not_fitted: dict[str, list[str]] = {}
    for name, record in ensemble.methods.items():
        if "not_fitted" in record:
            not_fitted.setdefault(record["not_fitted"], []).append(name)
        elif name not in known:
            left.append(name)
    tested = next((record for record in records if "n" in record), None)
    return table_note(
        "attacked_methods",
        confidence=confidence,
        tested=tested,
        ensemble=ensemble,
        left=left,
        not_fitted=not_fitted,
    )
