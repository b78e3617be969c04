"""Read what the stages wrote. Names come from params.yaml; what is missing is listed and never filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.core.lineage import MADE_ON, TABLES, Hash, difference
from medrobust.core.records import file_hash, read_json, read_metrics, read_table, read_versions
from medrobust.report.provenance import Provenance, folder_md5
from medrobust.report.run import REGIMES, Ensemble, Model, Patients, Run, method_label


@dataclass(frozen=True)
class Folders:
    """Where the stages wrote; each folder may be missing in part or whole."""

    prepared: Path
    metrics: Path
    plots: Path
    tuned: Path
    checkpoints: Path
    predictions: Path | None = None  # on clean images
    attacks: Path | None = None  # attempts of the suites
    scores: Path | None = None  # a file: log-probabilities before and after the attacks of the transfer matrix
    suites: Path | None = None  # a file: hashes of the resolved suites
    audit: Path | None = None  # tables of the audit, and its contact sheet
    code: Path | None = None  # one hash of the code per stage; None if it is not needed
    cases: Path | None = None  # a file: single images under attack
    transferred: Path | None = None  # predictions of patients, attacked as the images of the transfer matrix are


class Reader:
    """Reads a file if it is there and belongs to the run; otherwise notes the reason in the run.

    A result belongs to the run if dvc.lock says so, and if it was made on the hashes that are `expected`.
    """

    def __init__(self, run: Run) -> None:
        self.provenance, self.missing, self.foreign = run.provenance, run.missing, run.foreign
        self.versions = run.versions

    def record(self, path: Path) -> Any:
        """A JSON record; {} if it cannot be used."""
        return read_json(path) if self.usable(path) else {}

    def metrics(self, path: Path, expected: Mapping[str, Hash]) -> dict[str, Any]:
        """The record of a metrics file, with what it was made on; {} if it cannot be used or is empty."""
        record = read_metrics(path) if self.usable(path) else {}
        if not record or not self.belongs(path, record.get(MADE_ON), expected):
            return {}
        if line := read_versions(path):
            self.versions[str(path)] = line
        return record

    def table(self, path: Path, record: Mapping[str, Any], **options: Any) -> pd.DataFrame | None:
        """A table, read with options of pandas; None if it cannot be used.

        `record` is that of the metrics file that its stage wrote with it.
        """
        if not self.usable(path):
            return None
        known = record.get(TABLES, {}).get(path.name)
        if known and file_hash(path) != known:
            self.foreign[str(path)] = "its stage wrote another table with its metrics"
            return None
        return read_table(path, **options)

    def parquet(self, path: Path, expected: Mapping[str, Hash]) -> pd.DataFrame | None:
        """A Parquet table, whose attributes say what it was made on; None if it cannot be used."""
        table = self.table(path, {})
        if table is None or not self.belongs(path, table.attrs.get(MADE_ON), expected):
            return None
        return table

    def belongs(self, path: Path, found: Mapping[str, Any] | None, expected: Mapping[str, Hash]) -> bool:
        """Whether a result was made on the expected hashes; if not, the reason is noted."""
        reason = difference(found, expected)
        if reason:
            self.foreign[str(path)] = f"it {reason}"
        return reason is None

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
    ensemble: Ensemble | None = None, patients: Patients | None = None,
) -> Run:  # fmt: skip
    """Read the records and tables of data, models and attacks, and of the ensemble if one is given.

    Files of other names than `backbones` and `suites` are not read. Without `provenance` every file is read.
    `ensemble` comes with `regime` and `attacked` from params.yaml, `patients` with `suites`.
    """
    run = Run(
        backbones, suites, ensemble=ensemble or Ensemble(), patients=patients or Patients(),
        provenance=provenance, code=folder_md5(folders.code) if folders.code else None,
    )  # fmt: skip
    reader = Reader(run)
    _read_data(run, reader, folders)
    for backbone in backbones:
        _read_backbone(run, reader, folders, backbone)
        for regime in REGIMES:
            _read_attacks(run, reader, folders, (backbone, regime))
            if patients:
                _read_patients(run, reader, folders, (backbone, regime))
    if ensemble:
        _read_ensemble(run, reader, folders)
        _read_attacks(run, reader, folders, ensemble.model)
        _read_methods(run, reader, folders)
        _read_transfer(run, reader, folders)
    return run


def collect_ensemble(folders: Folders, suites: list[str], regime: str, provenance: Provenance | None) -> Run:
    """Read the records of the data and of the ensemble alone: clean, attacked, and its checks."""
    run = Run([], suites, ensemble=Ensemble(regime), provenance=provenance)
    reader = Reader(run)
    _read_data(run, reader, folders)
    _read_ensemble(run, reader, folders)
    _read_attacks(run, reader, folders, run.ensemble.model)
    return run


def _read_data(run: Run, reader: Reader, folders: Folders) -> None:
    """The records of data, split and audit, and the hashes of data and suites."""
    if folders.code and (recorded := folders.code / "versions.json").is_file():
        run.versions[str(recorded)] = read_json(recorded)
    run.header.update(reader.record(folders.prepared / "header.json"))
    run.hashes.data = run.header.get("sha256")
    if folders.suites and folders.suites.is_file():
        known = read_json(folders.suites)
        run.hashes.suites.update({name: known[name] for name in run.suites if name in known})
    run.split.update(reader.metrics(folders.metrics / "split.json", run.hashes.of()))
    run.hashes.split = run.split.pop(MADE_ON, {}).get("split")
    run.audit.update(reader.metrics(folders.metrics / "audit.json", run.hashes.of()))


def _read_backbone(run: Run, reader: Reader, folders: Folders, backbone: str) -> None:
    training = run.training
    training.studies[backbone] = reader.metrics(folders.metrics / "tune" / f"{backbone}.json", run.hashes.of())
    training.chosen[backbone] = reader.record(folders.tuned / backbone / "best.json")
    path = folders.plots / "tune" / backbone / "trials.csv"
    if (trials := reader.table(path, training.studies[backbone])) is not None:
        training.trials[backbone] = trials
    for regime in REGIMES:
        model, name = (backbone, regime), f"{backbone}-{regime}"
        path = folders.checkpoints / backbone / regime / "card.json"
        card = reader.record(path)
        training.cards[model] = card if not card or reader.belongs(path, card, run.hashes.of()) else {}
        if "sha256" in training.cards[model]:
            run.hashes.models[model] = card["sha256"]
        expected = run.hashes.of(model)
        training.records[model] = reader.metrics(folders.metrics / "train" / f"{name}.json", expected)
        folder = folders.plots / "train" / name
        record = training.records[model]
        if (history := reader.table(folder / "history.csv", record)) is not None:
            training.history[model] = history
        if (
            confusion := reader.table(folder / "confusion.csv", record, dtype=str, keep_default_na=False)
        ) is not None:
            run.confusion[model] = confusion


def _read_attacks(run: Run, reader: Reader, folders: Folders, model: Model) -> None:
    for suite in run.suites:
        key, name = (*model, suite), "-".join((*model, suite))
        path = folders.plots / "attack" / f"{name}.csv"
        if record := reader.metrics(folders.metrics / "attack" / f"{name}.json", run.hashes.of(model, suite)):
            run.attacks.records[key] = record
        if (curve := reader.table(path, record)) is not None:
            run.attacks.curves[key] = curve
    path = folders.metrics / "checks" / f"{'-'.join(model)}.json"
    run.attacks.checks[model] = reader.metrics(path, run.hashes.of_all_suites(model))


def _read_ensemble(run: Run, reader: Reader, folders: Folders) -> None:
    """The record of the ensemble, which must have been fitted on the models of this run."""
    record = reader.metrics(folders.metrics / "ensemble.json", run.hashes.of_all_models())
    made_on = record.pop(MADE_ON, {})
    run.ensemble.record.update(record)
    if "weights" in made_on:
        run.hashes.models[run.ensemble.model] = made_on["weights"]
    for method, weights in made_on.get("methods", {}).items():
        run.hashes.models[method, run.ensemble.regime] = weights


def _read_patients(run: Run, reader: Reader, folders: Folders, model: Model) -> None:
    """Results with the patient as unit."""
    name = "-".join(model)
    if record := reader.metrics(folders.metrics / "patients" / f"{name}.json", run.hashes.of(model)):
        run.patients.records[model] = record
    for suite in run.patients.suites:
        path = folders.metrics / "attack_patient" / f"{name}-{suite}.json"
        if record := reader.metrics(path, run.hashes.of(model, suite)):
            run.patients.attacks[*model, suite] = record


def _read_methods(run: Run, reader: Reader, folders: Folders) -> None:
    """Attacks on the ensemble methods that are not selected, and their checks."""
    for method in run.ensemble.attacked:
        for suite in run.suites:
            path = folders.metrics / "methods" / f"{method}-{suite}.json"
            if record := reader.metrics(path, run.hashes.of((method, run.ensemble.regime), suite)):
                run.ensemble.attacks[method, suite] = record
        expected = run.hashes.of_all_suites((method, run.ensemble.regime))
        checks = reader.metrics(folders.metrics / "checks" / f"{method}-method.json", expected)
        run.attacks.checks[method_label(method), run.ensemble.regime] = checks


def _read_transfer(run: Run, reader: Reader, folders: Folders) -> None:
    transfer = run.ensemble.transfer
    expected = run.hashes.of_all_models() | {"suites": run.hashes.suites}
    transfer.update(reader.metrics(folders.metrics / "transfer.json", expected))
    matrix = reader.table(folders.plots / "transfer" / "matrix.csv", transfer)
    if matrix is not None and transfer.get("n"):
        run.ensemble.matrices[transfer["suite"], float(transfer["eps"])] = matrix
