"""Tables of repeated runs (`make seeds`, `make folds`): whether they belong to this run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medrobust.report.collect import Reader
from medrobust.report.repeated_table import RUNS
from medrobust.report.run import Model, Repeated, Run

#: (unit, model, measure) -> value; `resnet34-adv` is a model.
Results = dict[tuple[str, str, str], float]
#: Column of the run that was repeated, in the folder where the command was started.
OWN = "own"
#: Half a unit of the third decimal, to which the tables are rounded.
ROUNDING = 0.0005 + 1e-9


def headline_results(run: Run) -> Results:
    """Balanced accuracy and AUROC of every model, clean and under each suite and radius, per image and patient."""
    results: Results = {}
    for model in run.models():
        attacked = {suite: run.attacks.records.get((*model, suite), {}) for suite in run.suites}
        results |= _of_model("image", model, run.clean_record(*model), attacked)
    for model in run.models():
        attacked = {suite: run.patients.attacks.get((*model, suite), {}) for suite in run.patients.suites}
        results |= _of_model("patient", model, run.patients.records.get(model, {}), attacked)
    return results


def _of_model(unit: str, model: Model, clean: dict[str, Any], attacked: dict[str, dict[str, Any]]) -> Results:
    name = "-".join(model)
    found = {f"clean {measure}": clean.get(measure) for measure in ("balanced_accuracy", "auroc")}
    for suite, record in attacked.items():
        for measure in ("balanced_accuracy", "auroc"):
            radii = record.get(f"robust_{measure}", {})
            found |= {f"{suite} {eps} {measure}": value for eps, value in radii.items()}
    return {(unit, name, measure): value for measure, value in found.items() if value is not None}


def read_repeated(run: Run, metrics: Path, tables: Sequence[str], seed: int) -> None:
    """Put the tables that params.yaml names (`seeds`, `folds`) into `run.repeated`.

    A table belongs to the run if its column of the run that was repeated has this run's numbers in every row. That
    column is `own`, or over seeds that of this run's seed; if there are both, both count.
    """
    reader, numbers = Reader(run), headline_results(run)
    for over in tables:
        record = reader.metrics(metrics / "repeated" / f"{over}.json", {})
        if not record:
            continue
        single = [row for row in record["rows"] if "low" not in row]
        columns = [name for name in (OWN, f"{RUNS['seeds']}{seed}") if any(name in row for row in single)]
        run.repeated.append(Repeated(
            over, record["file"], bool(columns) and all(_agree(single, name, numbers) for name in columns),
            {_key(row): row for row in single},
            {(row["model"], row["measure"].partition(",")[0]): row for row in record["rows"] if "low" in row},
        ))  # fmt: skip


def _agree(rows: list[dict[str, Any]], column: str, numbers: Results) -> bool:
    """Whether a column has the numbers of a run, as far as rounded ones can tell."""
    pairs = [(row.get(column), numbers.get(_key(row))) for row in rows]
    if any((one is None) != (other is None) for one, other in pairs):
        return False
    return all(abs(one - other) <= ROUNDING for one, other in pairs if one is not None and other is not None)


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["unit"], row["model"], row["measure"]
