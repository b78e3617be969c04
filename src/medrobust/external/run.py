"""A cell of an external data set: one model on its images, and on its patients where the data have them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.core.intervals import round_to_interval
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.metrics import dvc_metrics
from medrobust.core.records import write_metrics, write_table
from medrobust.core.runtime import device, say
from medrobust.data.external import with_classes
from medrobust.data.store import SplitStore
from medrobust.detection.guard import load_guard
from medrobust.external.evaluate import Evaluation, Settings, evaluate_images, evaluate_patients
from medrobust.models import checkpoint
from medrobust.models.card import not_fitted, read_card, weights_hash
from medrobust.models.patient import load_patient_model
from medrobust.patients.subsets import no_patient_unit, patient_groups


@dataclass(frozen=True)
class ModelFolders:
    """Folders of one model; `guard` is empty if it has none."""

    network: Path
    guard: Path
    patient: Path


def evaluate_model(
    model: ModelFolders, external: SplitStore, plan: dict[str, Any], settings: Settings, made_on: dict[str, Any],
    metrics: Path, tables: Path,
) -> None:  # fmt: skip
    """Evaluate a model on all images of an external set, and write metrics and tables.

    Args:
        external: the set, all of it in the split `test`.
        plan: `suites`, and the `patient_suites` that attack all images of a patient at once (`plan.make_plan`).
        made_on: hashes of images and split on which the model was trained, and of the external images.
        metrics: file; the record of `evaluate_images`, with `patients_record`, that of `evaluate_patients` or
            `not_fitted` with the reason.
        tables: folder, in which the name of each file starts with that of the metrics file.
    """
    network = checkpoint.load(model.network, device())
    guard = load_guard(model.guard, device()) if (model.guard / "card.json").is_file() else None
    weights = weights_hash(model.network)
    images = evaluate_images(
        network, guard, with_classes(external.subset("test"), network.classes), plan["suites"], settings
    )
    record = {**images.record, "patients_record": _patients(model, external, plan, settings, tables, metrics.stem)}
    hashes = {suite["name"]: suite_hash(suite) for suite in (*plan["suites"], *plan["patient_suites"])}
    record |= {"left_out": external.store.header.left_out, "skipped": len(external.store.header.skipped)}
    record[MADE_ON] = {"weights": weights, **made_on, "suites": hashes}
    _write_tables(images, tables, metrics.stem)
    write_metrics(metrics, record, _shown(images.record))
    say(f"{metrics.stem}: {record['n']} images of {record['patients']} patients")


def _patients(
    model: ModelFolders, external: SplitStore, plan: dict[str, Any], settings: Settings, tables: Path, name: str
) -> dict[str, Any]:  # fmt: skip
    """The record with the patient as unit, or the reason why there is none."""
    if reason := not_fitted(model.patient) or no_patient_unit(external, ["test"]):
        return {"not_fitted": reason}
    patient = load_patient_model(model.patient, device())
    ordered = read_card(model.patient)["aggregate"] == "gru"
    groups = [with_classes(group, patient.classes) for group in patient_groups(external, "test", ordered=ordered)]
    found = evaluate_patients(patient, groups, plan["patient_suites"], settings)
    _write_tables(found, tables, f"{name}-patients")
    return found.record


def _write_tables(found: Evaluation, folder: Path, name: str) -> None:
    for kind, table in found.tables.items():
        numbers = {column: 6 for column in table if pd.api.types.is_float_dtype(table[column])}
        write_table(folder / f"{name}-{kind}.parquet", table.round(numbers))


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """The values that `dvc metrics` shows: of clean images, and of each suite and radius."""
    attacked = {
        f"{suite}@{eps}": round_to_interval(
            found["robust_balanced_accuracy"], found["robust_balanced_accuracy_ci"]
        )
        for suite, radii in record["attacks"].items()
        for eps, found in radii.items()
    }
    return {**dvc_metrics(record["clean"]), **attacked}
