"""The results of repeated runs in one table: mean, spread and worst; pooled patients of folds; classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medrobust.core.calibration import fit_temperature
from medrobust.core.params.schema import Params
from medrobust.core.records import read_json, read_metrics, read_table
from medrobust.patients.evaluate import prediction_summary
from medrobust.report.run import REGIMES

#: A row of the table.
Row = dict[str, Any]
#: (unit, model, measure) -> value
Results = dict[tuple[str, str, str], float]


def collect(metrics: Path, params: Params) -> Results:
    """The headline results of one run: balanced accuracy and AUROC, clean and under each suite, per unit."""
    results: Results = {}
    names = [f"{backbone}-{regime}" for backbone in params.models for regime in REGIMES]
    ensemble = f"ensemble-{params.ensemble.regime}"
    for unit, clean, attacked in (("image", "train", "attack"), ("patient", "patients", "attack_patient")):
        for name in [*names, ensemble] if unit == "image" else names:
            path = metrics / "ensemble.json" if name == ensemble else metrics / clean / f"{name}.json"
            record = read_metrics(path)
            for measure in ("balanced_accuracy", "auroc"):
                _add(results, (unit, name, f"clean {measure}"), record.get(measure))
            for suite in params.attacks.suites if unit == "image" else params.patient.suites:
                under = read_metrics(metrics / attacked / f"{name}-{suite}.json")
                for key in ("robust_balanced_accuracy", "robust_auroc"):
                    for eps, value in under.get(key, {}).items():
                        _add(results, (unit, name, f"{suite} {eps} {key.removeprefix('robust_')}"), value)
    return results


def _add(results: Results, key: tuple[str, str, str], value: float | None) -> None:
    if value is not None:
        results[key] = value


def summarise(runs: Mapping[str, Results]) -> list[Row]:
    """One row per unit, model and measure: mean, sample standard deviation, worst, number of runs, each run."""
    keys = [key for key in next(iter(runs.values())) if all(key in run for run in runs.values())]
    rows = []
    for key in keys:
        values = np.array([run[key] for run in runs.values()])
        numbers = {"mean": values.mean(), "sd": values.std(ddof=1), "worst": values.min()}
        each = dict(zip(runs, values, strict=True))
        rounded = {name: round(float(value), 3) for name, value in {**numbers, **each}.items()}
        rows.append(dict(zip(("unit", "model", "measure"), key, strict=True)) | {"runs": len(values)} | rounded)
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
