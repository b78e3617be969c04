"""Variation over training seeds and folds, beside the interval over the patients of this run."""

from collections.abc import Iterator
from typing import Any

from medrobust.report.repeated import headline_results
from medrobust.report.run import Model, Repeated, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval, with_interval_at
from medrobust.report.templates import table_note

#: What the runs differ in -> the command that makes the table.
COMMANDS = {"seeds": "make seeds SEEDS=1,2,3", "folds": "make folds"}
TITLES = {"seeds": "Variation over training seeds", "folds": "Variation over folds"}
MEASURES = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def repeated_text(run: Run) -> list[str]:
    """One sentence for each table that is not shown, with the command that makes it."""
    known, found = {table.over: table for table in run.repeated}, []
    for over, command in COMMANDS.items():
        if over not in known:
            found.append(
                f"The variation over {over} was not measured. Run {command} (docs/experiments.md), and name its "
                "table in report.repeated of params.yaml."
            )
        elif not known[over].belongs:
            found.append(
                f"{known[over].file} is of another run: its numbers of this run are not those on this page. "
                f"Run {command} to make it anew."
            )
    return found


def repeated_tables(run: Run, confidence: float) -> list[Table]:
    """One table over seeds and one over folds, if they belong to the run; by patient if possible."""
    return [_table(run, table, confidence) for table in run.repeated if table.belongs]


def _table(run: Run, repeated: Repeated, confidence: float) -> Table:
    by_patient = {model for unit, model, _ in headline_results(run) if unit == "patient"}
    rows = []
    for model in run.models():
        unit = "patient" if "-".join(model) in by_patient else "image"
        for measure, key, own in _measures(run, model, unit):
            if (found := repeated.rows.get((unit, "-".join(model), key))) is None:
                continue
            cells = [number(found.get(name)) for name in ("mean", "sd", "worst")]
            whole = repeated.pooled.get(("-".join(model), key), {}) if unit == "patient" else {}
            pooled = [ranged(whole.get("mean"), whole.get("low"), whole.get("high"))] if repeated.pooled else []
            rows.append([model[0], TRAINING[model[1]], unit, measure, own, str(found["runs"]), *cells, *pooled])
    columns = ["model", "training", "unit", "measure", "this run", "runs", "mean", "sd", "worst"]
    columns += ["patients of all folds"] if repeated.pooled else []
    note = table_note("repeated", confidence=confidence, table=repeated)
    return Table(TITLES[repeated.over], columns, rows, note)


def _measures(run: Run, model: Model, unit: str) -> Iterator[tuple[str, str, str]]:
    """Each measure in words, its name in the table, and its value in this run with the interval over patients."""
    if unit == "patient":
        suites, attacks, nearest = run.patients.suites, run.patients.attacks, run.nearest_patient_eps
        clean: dict[str, Any] = run.patients.records.get(model, {})
    else:
        suites, attacks, nearest = tuple(run.suites), run.attacks.records, run.nearest_eps
        clean = run.clean_record(*model)
    for name, words in MEASURES.items():
        yield f"clean: {words}", f"clean {name}", with_interval(clean, name)
    for suite in suites:
        eps, record = nearest(*model, suite), attacks.get((*model, suite), {})
        for name, words in MEASURES.items():
            cell = with_interval_at(record, f"robust_{name}", eps or NONE)
            yield f"{suite} ε {eps}: {words}", f"{suite} {eps} {name}", cell
