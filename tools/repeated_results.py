"""The results of repeated runs in one table: mean, spread and worst; pooled patients of folds; classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medrobust.core.calibration import fit_temperature
from medrobust.core.params.schema import Params
from medrobust.core.records import read_json, read_table
from medrobust.patients.evaluate import prediction_summary
from medrobust.report.collect import Folders, collect
from medrobust.report.provenance import Provenance
from medrobust.report.repeated import OWN, Results, headline_results
from medrobust.report.run import REGIMES, Ensemble, Patients

#: A row of the table.
Row = dict[str, Any]


def collect_results(folder: Path, params: Params, provenance: Provenance | None = None) -> Results:
    """The headline results of the run in a folder; with `provenance` only those that belong to its dvc.lock."""
    names = ("data/prepared", "metrics", "plots", "data/tune", "data/checkpoints")
    run = collect(
        Folders(*(folder / name for name in names)), list(params.models), list(params.attacks.suites), provenance,
        Ensemble(params.ensemble.regime), Patients(tuple(params.patient.suites)),
    )  # fmt: skip
    return headline_results(run)


def summarise(runs: Mapping[str, Results], own: Results | None = None) -> list[Row]:
    """One row per unit, model and measure: mean, sample standard deviation, worst, number of runs, each run.

    `own` are the results of the run that was repeated, by which the report knows that a table belongs to it.
    """
    keys = [key for key in next(iter(runs.values())) if all(key in run for run in runs.values())]
    rows = []
    for key in keys:
        values = np.array([run[key] for run in runs.values()])
        numbers = {"mean": values.mean(), "sd": values.std(ddof=1), "worst": values.min()}
        each = dict(zip(runs, values, strict=True))
        rounded = {name: round(float(value), 3) for name, value in {**numbers, **each}.items()}
        row = dict(zip(("unit", "model", "measure"), key, strict=True)) | {"runs": len(values)} | rounded
        rows.append(row if own is None else row | {OWN: round(own[key], 3) if key in own else None})
    return rows


def class_counts(runs: Mapping[str, Results]) -> list[Row]:
    """One row per unit, model and measure, and one column per run; runs are named `classes-<count>`.

    The first row is the balanced accuracy of guessing, because more classes lower the other numbers by themselves.
    """
    guessing = {name: round(1 / int(name.removeprefix("classes-")), 3) for name in runs}
    rows: list[Row] = [{"unit": "any", "model": "guessing", "measure": "balanced_accuracy", **guessing}]
    for row in summarise(runs):
        rows.append({key: value for key, value in row.items() if key not in ("mean", "sd", "worst", "runs")})
    return rows


def pooled_patients(clones: list[Path], params: Params) -> list[Row]:
    """Rows of the test patients of all folds together; every patient is in test once.

    Folds have models of their own, so that probabilities are divided by a temperature per fold, fitted on that
    fold's validation patients. `mean` is the pooled value, `low` and `high` its interval over patients.
    """
    rows: list[Row] = []
    for name in [f"{backbone}-{regime}" for backbone in params.models for regime in REGIMES]:
        tables = [read_table(clone / "data/predictions/patients" / f"{name}.parquet") for clone in clones]
        if not all(len(table) for table in tables):
            continue
        header = read_json(clones[0] / "data/prepared/header.json")
        pooled = pd.concat([_calibrated(table) for table in tables], ignore_index=True)
        classes = [str(column) for column in pooled if str(column).startswith("logprob_")]  # after merging
        summary = prediction_summary(
            pooled, classes, ordered=header["ordered"], resamples=params.report.bootstrap,
            confidence=params.report.confidence,
        )  # fmt: skip
        for measure in ("balanced_accuracy", "auroc"):
            if summary[measure] is None:  # no patient of a class
                continue
            label = f"clean {measure}, {len(pooled)} patients pooled"
            values = (summary[measure], *summary[f"{measure}_ci"])
            rounded = {key: round(float(v), 3) for key, v in zip(("mean", "low", "high"), values, strict=True)}
            rows.append({"unit": "patient", "model": name, "measure": label, "runs": len(clones)} | rounded)
    return rows


def _calibrated(table: pd.DataFrame) -> pd.DataFrame:
    """The test rows of one fold, with log-probabilities at the temperature of its validation rows."""
    columns = [column for column in table if str(column).startswith("logprob_")]
    val, test = (table[table["split"] == name] for name in ("val", "test"))
    temperature = fit_temperature(val[columns].to_numpy(), val["label"].to_numpy())
    scaled = torch.from_numpy(test[columns].to_numpy(copy=True) / temperature).log_softmax(1).numpy()
    return test.assign(**{str(name): column for name, column in zip(columns, scaled.T, strict=True)})
