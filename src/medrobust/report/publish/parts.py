"""What travels with the weights of a model: how files become its input, guard, suites, model of patients."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.attacks.engine.suite import plain_suite
from medrobust.core.calibration import fit_temperature
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, check_made_on
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.params.data import DataParams
from medrobust.core.records import read_json, read_table, write_json
from medrobust.data.store import read_header, read_manifest
from medrobust.models.use import GUARD, PATIENT, SUITES, USE, Use
from medrobust.report.collect import Reader
from medrobust.report.run import Model, Run

AGAIN = "Run `dvc repro`, so that the stage that writes it runs"


@dataclass(frozen=True)
class Parts:
    """Paths of what the stages wrote for one model beside its checkpoint.

    Attributes:
        guard: folder; empty if the model has no guard.
        patient: folder of the model of patients; None for an ensemble.
        predictions: table with the predictions for validation images; None for an ensemble, whose card has the
            temperature.
        patient_predictions: the same for validation patients.
    """

    guard: Path
    patient: Path | None = None
    predictions: Path | None = None
    patient_predictions: Path | None = None


@dataclass(frozen=True)
class Usage:
    """What all models of a run have in common.

    Attributes:
        prepared: folder of the prepared data.
        grid: see `models.use.Use`, like `bootstrap` and `confidence`.
    """

    prepared: Path
    data: DataParams
    grid: int
    bootstrap: int
    confidence: float


def write_parts(
    folder: Path, parts: Parts, usage: Usage, suites: Mapping[str, SuiteParams], card: dict[str, Any], sha256: str
) -> Use:
    """Write `use.json`, `suites.json`, and copy guard and model of patients into a model's folder.

    Args:
        suites: those of params.yaml, by name.
        card: content of the model's card.json.
        sha256: of the model's weights, to which guard and predictions must belong.

    Raises:
        UserError: a file is missing, or was made on other weights.
    """
    header, slices = read_header(usage.prepared / "header.json"), read_manifest(usage.prepared / "manifest.csv")
    fitted = parts.patient is not None and _copy_patient(parts.patient, folder / PATIENT, sha256)
    use = Use(
        input={name: getattr(usage.data, name) for name in ("image_size", "channels", "window", "volume")},
        slices=bool(slices["slice"].notna().any()),
        temperature=_temperature(parts.predictions, sha256) if parts.predictions else card.get("temperature"),
        patient_temperature=_temperature(parts.patient_predictions, sha256) if fitted else None,
        ordered=header.ordered,
        bootstrap=usage.bootstrap,
        confidence=usage.confidence,
        grid=usage.grid,
    )
    write_json(folder / USE, use.model_dump(mode="json"))
    alone = travelling(suites)
    write_json(folder / SUITES, {name: plain_suite(name, suite) for name, suite in alone.items()})
    if (parts.guard / "card.json").is_file():
        if read_json(parts.guard / "card.json")["model"] != sha256:
            raise UserError(str(parts.guard), "was fitted to other weights than this model's", AGAIN)
        _copy(parts.guard, folder / GUARD)
    return use


def travelling(suites: Mapping[str, SuiteParams]) -> dict[str, SuiteParams]:
    """The suites of a model's folder: a `transfer` attack needs another model, which does not travel with it."""
    return {name: suite for name, suite in suites.items() if "transfer" not in suite.attack_names()}


def operating_points(run: Run, metrics: Path, model: Model, guard: Path) -> list[dict[str, Any]]:
    """Name, threshold and false alarms of each detector of a model's guard, for its card; [] without a guard.

    `rate` and `ci` are the share of clean test images above the threshold, with its interval; None if the record
    of the detection is missing or belongs to another run, which is noted in `run`. Otherwise `run.detect` has it.
    """
    if not (guard / "card.json").is_file():
        return []
    card = read_json(guard / "card.json")
    record = Reader(run).metrics(metrics / "detect" / f"{'-'.join(model)}.json", run.hashes.of(model))
    if record:
        run.detect[model] = record
    rows: dict[str, Any] = next(iter(record.get("suites", {}).values()), {})
    return [
        {
            "name": name,
            "threshold": row["threshold"],
            "fpr": card["fpr"],
            "rate": rows.get(name, {}).get("test_fpr"),
            "ci": rows.get(name, {}).get("test_fpr_ci"),
        }
        for name, row in card["detectors"].items()
    ]


def copy_members(source: Path, folder: Path) -> None:
    """Copy the card of an ensemble and the checkpoints of all its members into one folder.

    Raises:
        UserError: a member is missing.
    """
    card = read_json(source / "card.json")
    for name, row in card.get("members", {}).items():
        checkpoint = source / row["folder"]
        if not (checkpoint / "model.safetensors").is_file():
            raise UserError(str(checkpoint / "model.safetensors"), "no such file", AGAIN)
        _copy(checkpoint, folder / "members" / name)
        row["folder"] = f"members/{name}"
    write_json(folder / "card.json", card)


def _copy_patient(source: Path, folder: Path, sha256: str) -> bool:
    """Copy a model of patients; False if the data have no patient unit. Its network is the folder above it."""
    card = read_json(source / "card.json")
    if "not_fitted" in card:
        return False
    if card["sha256"] != sha256:
        raise UserError(str(source), "was fitted to other weights than this model's", AGAIN)
    _copy(source, folder)
    card["patient"]["network"] = ".."
    write_json(folder / "card.json", card)
    return True


def _temperature(path: Path | None, sha256: str) -> float | None:
    """The temperature that calibrates predictions of validation images or patients; None if there are none."""
    if path is None:
        return None
    table: pd.DataFrame = read_table(path)
    if MADE_ON in table.attrs:
        check_made_on(path, table.attrs[MADE_ON], {"weights": sha256})
    val = table[table["split"] == "val"]
    columns = [name for name in table if str(name).startswith("logprob_")]
    return fit_temperature(val[columns].to_numpy(), val["label"].to_numpy()) if len(val) else None


def _copy(source: Path, folder: Path) -> None:
    """Copy the files of a folder, not links to DVC's cache."""
    folder.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, folder / path.name)
