"""Results by group of patients (sex, age, site): clean, corrupted and attacked, and the largest gap."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from medrobust.core.metrics import rate_estimates
from medrobust.data.store import read_manifest
from medrobust.report.answers import right_clean
from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, Model, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import CONSTANT
from medrobust.report.tables.table import NONE, Table, number, ranged
from medrobust.report.templates import table_note

#: A group with fewer test patients is named and not shown: its numbers would describe persons.
MIN_PATIENTS = 5
#: The rows of a table that hold differences.
GAP = "largest gap"


class Rate(NamedTuple):
    """A rate or an AUROC, with its interval."""

    value: float
    low: float
    high: float


def read_groups(run: Run, prepared: Path) -> None:
    """Put the groups of images and patients into `run.groups`; nothing is read if the data have none.

    A patient whose images are of several groups has an unknown one.
    """
    names = run.header.get("groups", [])
    if names and Reader(run).usable(prepared / "manifest.csv"):
        manifest = read_manifest(prepared / "manifest.csv")
        of_patients = manifest.groupby("patient")[names].agg(
            lambda values: values.iloc[0] * (values.nunique() == 1)
        )
        run.groups = {"image": manifest.set_index("id")[names], "patient": of_patients}


def _conditions(run: Run, model: Model, unit: str) -> dict[str, pd.DataFrame]:
    """Condition -> table with `id`, `patient`, `label`, `right`, one row per prediction on the test set."""
    answers, found = run.answers, dict[str, pd.DataFrame]()
    by_image = answers.predictions, answers.corrupted, answers.attacked
    by_patient = answers.patients, answers.patients_corrupted, answers.patients_attacked
    clean, corrupted, attacked = by_image if unit == "image" else by_patient
    if model in clean:
        found["clean"] = right_clean(clean[model])
    if model in corrupted and len(table := corrupted[model]):
        found["corrupted"] = table.assign(right=table["pred"] == table["label"])
    for suite, radius in answers.radii.items():
        if (*model, suite) in attacked:
            found[f"{suite}, ε {radius}"] = attacked[*model, suite]
    return found


def group_tables(run: Run, confidence: float) -> list[Table]:
    """Tables per group, by image and by patient: a row per model and value, and the largest gap of two values."""
    return [
        table
        for name in run.groups.get("image", pd.DataFrame()).columns
        for unit in ("image", "patient")
        if (table := _table(run, name, unit, confidence))
    ]


def _table(run: Run, name: str, unit: str, confidence: float) -> Table | None:
    """The table of one group and unit; None if no model has answers. If it shows no value, it names all."""
    models = [(backbone, regime) for backbone in run.backbones for regime in REGIMES]
    right = {model: _conditions(run, model, unit) for model in models}
    known = dict.fromkeys(key for found in right.values() for key in found)
    conditions = sorted(known, key=lambda key: key not in ("clean", "corrupted"))
    rows, small = [], set[str]()
    for model, found in right.items():
        part, few = _rows(run, run.groups[unit][name], found, conditions, confidence)
        rows += [[model[0], TRAINING[model[1]], *cells] for cells in part]
        small |= few
    if small and not rows:
        rows = [[NONE, NONE, "no group is large enough", *[NONE] * (2 + len(conditions))]]
    rows += _constant_rows(run.groups[unit][name], right, len(conditions))
    note = table_note("groups", confidence=confidence, unit=unit, least=MIN_PATIENTS, small=sorted(small), gap=GAP)
    columns = ["model", "training", name, "n", "patients", *conditions]
    title = f"Groups: {name}{', by patient' if unit == 'patient' else ''}"
    return Table(title, columns, rows, note, folded=unit == "patient") if known else None


def _rows(
    run: Run, values: pd.Series, found: dict[str, pd.DataFrame], conditions: list[str], confidence: float
) -> tuple[list[list[str]], set[str]]:
    """The rows of one model from the column of the group on, and the values with too few patients."""
    rates: dict[str, dict[str, Rate]] = {}
    rows, small = [], set[str]()
    for value in sorted({*values} - {""}):
        members = values.index[values == value]
        tables = {key: table[table["id"].isin(members)] for key, table in found.items()}
        parts = {key: table for key, table in tables.items() if len(table)}
        if not parts:
            continue
        first = next(iter(parts.values()))
        count = first["patient"].nunique()
        if count < MIN_PATIENTS:
            small.add(f"{value} ({count})")
            continue
        rates[value] = {key: balanced(part, run.classes(), confidence) for key, part in parts.items()}
        cells = [ranged(*rates[value][key]) if key in rates[value] else NONE for key in conditions]
        rows.append([value, str(first["id"].nunique()), str(count), *cells])
    if len(rates) > 1:
        rows.append([GAP, NONE, NONE, *(_gap(rates, key) for key in conditions)])
    return rows, small


def _constant_rows(
    values: pd.Series, right: dict[Model, dict[str, pd.DataFrame]], conditions: int
) -> list[list[str]]:
    """The constant answer in every group that is shown: its balanced accuracy is over the classes of the group."""
    tables = [table for found in right.values() for table in found.values()]
    if not tables:
        return []
    images = pd.concat([table[["id", "patient", "label"]] for table in tables]).drop_duplicates("id")
    rows = []
    for value, part in images.groupby(images["id"].map(values)):
        if value and (count := part["patient"].nunique()) >= MIN_PATIENTS:
            score = number(1 / part["label"].nunique())
            rows.append([CONSTANT, NONE, str(value), str(len(part)), str(count), *[score] * conditions])
    return rows


def balanced(part: pd.DataFrame, classes: list[str], confidence: float) -> Rate:
    """Balanced accuracy over the classes that the group has, with an interval over whole patients."""
    right, labels, patients = (part[key].to_numpy() for key in ("right", "label", "patient"))
    found = rate_estimates(right, labels, patients, classes, confidence=confidence)
    value, interval = found["balanced_accuracy"]
    low, high = interval or [0.0, 1.0]
    return Rate(float(value or 0.0), low, high)


def _gap(rates: dict[str, dict[str, Rate]], key: str) -> str:
    known = {value: found[key] for value, found in rates.items() if key in found}
    if len(known) < 2:
        return NONE
    best = max(known, key=lambda value: known[value].value)
    worst = min((value for value in known if value != best), key=lambda value: known[value].value)
    return f"{best} − {worst}: {ranged(*difference(known[best], known[worst]))}"


def difference(one: Rate, other: Rate) -> Rate:
    """The difference of a rate, or an AUROC, between two groups of different patients, with its interval.

    The interval is computed from the intervals of both (method of variance estimates recovery: Newcombe 1998; Zou
    & Donner 2008).
    """
    value = one.value - other.value
    below = np.hypot(one.value - one.low, other.high - other.value)
    above = np.hypot(one.high - one.value, other.value - other.low)
    return Rate(value, value - float(below), value + float(above))
