"""Read what the stages wrote. Names come from params.yaml; what is missing is listed and never filled in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.core.records import read_json, read_metrics, read_table, read_versions
from medrobust.report.provenance import Provenance, folder_md5
from medrobust.report.run import REGIMES, Ensemble, Model, Run, method_label


@dataclass(frozen=True)
class Folders:
    """Where the stages wrote; each folder may be missing in part or whole."""

    prepared: Path
    metrics: Path
    plots: Path
    tuned: Path
    checkpoints: Path
    predictions: Path | None = None  # a file: the ensemble's, on test images
    audit: Path | None = None  # tables of the audit, and its contact sheet
    code: Path | None = None  # one hash of the code per stage; None if it is not needed


class Reader:
    """Reads a file if it is there and belongs to the run; otherwise notes the reason in the run."""

    def __init__(self, run: Run) -> None:
        self.provenance, self.missing, self.foreign = run.provenance, run.missing, run.foreign
        self.versions = run.versions

    def record(self, path: Path) -> Any:
        """A JSON record; {} if it cannot be used."""
        return read_json(path) if self.usable(path) else {}

    def metrics(self, path: Path) -> dict[str, Any]:
        """The record of a metrics file; {} if it cannot be used."""
        if not self.usable(path):
            return {}
        if line := read_versions(path):
            self.versions[str(path)] = line
        return read_metrics(path)

    def table(self, path: Path, **options: Any) -> pd.DataFrame | None:
        """A table, read with options of pandas; None if it cannot be used."""
        return read_table(path, **options) if self.usable(path) else None

    def usable(self, path: Path) -> bool:
        """Whether a file is there and belongs to the run; if not, the reason is noted."""
        if not path.is_file():
            self.missing.append(str(path))
            return False
        if self.provenance and (reason := self.provenance.foreign(path)):
            self.foreign[str(path)] = reason
            return False
        return True


def collect(
    folders: Folders, backbones: list[str], suites: list[str], provenance: Provenance | None = None,
    ensemble: Ensemble | None = None,
) -> Run:  # fmt: skip
    """Read the records and tables of data, models and attacks, and of the ensemble if one is given.

    Files of other names than `backbones` and `suites` are not read. Without `provenance` every file is read.
    `ensemble` comes with `regime` and `attacked` from params.yaml.
    """
    code = folder_md5(folders.code) if folders.code else None
    run = Run(backbones, suites, ensemble=ensemble or Ensemble(), provenance=provenance, code=code)
    reader = Reader(run)
    if folders.code and (recorded := folders.code / "versions.json").is_file():
        run.versions[str(recorded)] = read_json(recorded)
    run.header.update(reader.record(folders.prepared / "header.json"))
    for name, target in (("audit", run.audit), ("split", run.split)):
        target.update(reader.metrics(folders.metrics / f"{name}.json"))
    for backbone in backbones:
        _read_backbone(run, reader, folders, backbone)
        for regime in REGIMES:
            _read_attacks(run, reader, folders, (backbone, regime))
            if ensemble:
                _read_patients(run, reader, folders, (backbone, regime))
    if ensemble:
        ensemble.record.update(reader.metrics(folders.metrics / "ensemble.json"))
        _read_attacks(run, reader, folders, ensemble.model)
        _read_methods(run, reader, folders)
        _read_transfer(run, reader, folders)
        if folders.predictions:
            _read_predictions(run, reader, folders.predictions)
    return run


def _read_backbone(run: Run, reader: Reader, folders: Folders, backbone: str) -> None:
    training = run.training
    training.studies[backbone] = reader.metrics(folders.metrics / "tune" / f"{backbone}.json")
    training.chosen[backbone] = reader.record(folders.tuned / backbone / "best.json")
    if (trials := reader.table(folders.plots / "tune" / backbone / "trials.csv")) is not None:
        training.trials[backbone] = trials
    for regime in REGIMES:
        model, name = (backbone, regime), f"{backbone}-{regime}"
        training.records[model] = reader.metrics(folders.metrics / "train" / f"{name}.json")
        training.cards[model] = reader.record(folders.checkpoints / backbone / regime / "card.json")
        folder = folders.plots / "train" / name
        if (history := reader.table(folder / "history.csv")) is not None:
            training.history[model] = history
        if (confusion := reader.table(folder / "confusion.csv", dtype=str, keep_default_na=False)) is not None:
            run.confusion[model] = confusion


def _read_attacks(run: Run, reader: Reader, folders: Folders, model: Model) -> None:
    for suite in run.suites:
        key = (*model, suite)
        if record := reader.metrics(folders.metrics / "attack" / f"{'-'.join(key)}.json"):
            run.attacks.records[key] = record
        if (curve := reader.table(folders.plots / "attack" / f"{'-'.join(key)}.csv")) is not None:
            run.attacks.curves[key] = curve
    run.attacks.checks[model] = reader.metrics(folders.metrics / "checks" / f"{'-'.join(model)}.json")


def _read_patients(run: Run, reader: Reader, folders: Folders, model: Model) -> None:
    """Results with the patient as unit."""
    name = "-".join(model)
    if record := reader.metrics(folders.metrics / "patients" / f"{name}.json"):
        run.patients.records[model] = record
    for suite in run.suites:
        if record := reader.metrics(folders.metrics / "attack_patient" / f"{name}-{suite}.json"):
            run.patients.attacks[*model, suite] = record


def _read_methods(run: Run, reader: Reader, folders: Folders) -> None:
    """Attacks on the ensemble methods that are not selected, and their checks."""
    for method in run.ensemble.attacked:
        for suite in run.suites:
            if record := reader.metrics(folders.metrics / "methods" / f"{method}-{suite}.json"):
                run.ensemble.attacks[method, suite] = record
        checks = reader.metrics(folders.metrics / "checks" / f"{method}-method.json")
        run.attacks.checks[method_label(method), run.ensemble.regime] = checks


def _read_transfer(run: Run, reader: Reader, folders: Folders) -> None:
    transfer = run.ensemble.transfer
    transfer.update(reader.metrics(folders.metrics / "transfer.json"))
    matrix = reader.table(folders.plots / "transfer" / "matrix.csv")
    if matrix is not None and transfer.get("n"):
        run.ensemble.matrices[transfer["suite"], float(transfer["eps"])] = matrix


def _read_predictions(run: Run, reader: Reader, path: Path) -> None:
    """The ensemble's predictions on clean test images, by class names."""
    predictions = reader.table(path)
    if predictions is None:
        return
    names = dict(enumerate(run.classes()))
    table = pd.DataFrame({"actual": predictions["label"].map(names), "predicted": predictions["pred"].map(names)})
    if not table.isna().any(axis=None):  # otherwise the header or the split is missing, which is listed
        run.confusion[run.ensemble.model] = table
