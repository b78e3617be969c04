"""Results by group of patients (sex, age, site): clean, corrupted and attacked, and the largest gap."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from medrobust.core.lineage import MADE_ON
from medrobust.core.metrics import rate_estimates
from medrobust.data.store import read_manifest
from medrobust.report.collect import Reader
from medrobust.report.run import Model, Run, name_of
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, ranged
from medrobust.report.templates import table_note

#: A group with fewer test patients is named and not shown: its numbers would describe persons.
MIN_PATIENTS = 5
#: The rows of a table that hold differences.
GAP = "largest gap"


@dataclass(frozen=True)
class GroupFolders:
    """Folders of tables with one row per image and prediction."""

    predictions: Path
    attacks: Path
    corrupted: Path


class Rate(NamedTuple):
    """A balanced accuracy with its interval."""

    value: float
    low: float
    high: float


def read_groups(run: Run, prepared: Path, folders: GroupFolders) -> None:
    """Put the groups of the images, and per model whether each prediction is right, into `run.groups`.

    Nothing is read if the data have no groups.
    """
    names = run.header.get("groups", [])
    if not names or not Reader(run).usable(prepared / "manifest.csv"):
        return
    run.groups.of_image = read_manifest(prepared / "manifest.csv").set_index("id")[names]
    for backbone in run.backbones:
        for regime in TRAINING:
            model = (backbone, regime)
            run.groups.right[model] = dict(_conditions(run, model, folders))


def _conditions(run: Run, model: Model, folders: GroupFolders) -> Iterator[tuple[str, pd.DataFrame]]:
    """Condition -> table of `id`, `patient`, `label`, `right`, one row per prediction on test images."""
    name = name_of(*model)
    if (table := _read(run, folders.predictions / f"{name}.parquet", model)) is not None:
        test = table[table["split"] == "test"]
        yield "clean", _right(test, test["pred"] == test["label"])
    if model in run.corruptions.records:
        table = _read(run, folders.corrupted / f"{name}.parquet", model)
        if table is not None:
            first = table[(table["draw"] == 0) & (table["severity"] > 0)]
            yield "corrupted", _right(first, first["pred"] == first["label"])
    for suite in run.suites:
        near = run.nearest_eps(*model, suite)
        if near and (table := _read(run, folders.attacks / name / f"{suite}.parquet", model, suite)) is not None:
            inside = table["fooled"] & (table["attack"] != "stored") & (table["distance"] <= float(near) * 1.0001)
            images = table.drop_duplicates("id")
            yield f"{suite}, ε {near}", _right(images, ~images["id"].isin(table["id"][inside]))


def _read(run: Run, path: Path, model: Model, suite: str | None = None) -> pd.DataFrame | None:
    reader = Reader(run)
    table = reader.table(path, {})
    if table is None or not reader.belongs(path, table.attrs.get(MADE_ON), run.hashes.of(model, suite)):
        return None
    return table


def _right(table: pd.DataFrame, right: pd.Series) -> pd.DataFrame:
    return table[["id", "patient", "label"]].assign(right=right.to_numpy(dtype=bool))


def group_tables(run: Run, confidence: float) -> list[Table]:
    """One table per group: a row per model and value, and the largest gap between two values."""
    tables = []
    for name in run.groups.of_image.columns:
        known = dict.fromkeys(key for found in run.groups.right.values() for key in found)
        conditions = sorted(known, key=lambda key: key not in ("clean", "corrupted"))
        rows, small = [], set[str]()
        for model, found in run.groups.right.items():
            part, few = _rows(run, name, found, conditions, confidence)
            rows += [[model[0], TRAINING[model[1]], *cells] for cells in part]
            small |= few
        note = table_note("groups", confidence=confidence, least=MIN_PATIENTS, small=sorted(small), gap=GAP)
        columns = ["model", "training", name, "n", "patients", *conditions]
        tables.append(Table(f"Groups: {name}", columns, rows, note))
    return tables


def _rows(
    run: Run, name: str, found: dict[str, pd.DataFrame], conditions: list[str], confidence: float
) -> tuple[list[list[str]], set[str]]:
    """The rows of one model from the column of the group on, and the values with too few patients."""
    rates: dict[str, dict[str, Rate]] = {}
    rows, small = [], set[str]()
    values = run.groups.of_image[name]
    for value in sorted({*values} - {""}):
        images = values.index[values == value]
        tables = {key: table[table["id"].isin(images)] for key, table in found.items()}
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
    best, worst = (choose(known, key=lambda value: known[value].value) for choose in (max, min))
    return f"{best} − {worst}: {ranged(*difference(known[best], known[worst]))}"


def difference(one: Rate, other: Rate) -> Rate:
    """The difference of the rates of two groups of different patients, with its interval.

    The interval recovers the variances from those of both rates (Newcombe 1998; Zou & Donner 2008).
    """
    value = one.value - other.value
    below = np.hypot(one.value - one.low, other.high - other.value)
    above = np.hypot(one.high - one.value, other.value - other.low)
    return Rate(value, value - float(below), value + float(above))
