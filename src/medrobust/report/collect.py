"""Read what the stages wrote. Names come from params.yaml; what is missing is named, never filled in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.core.records import read_json, read_metrics, read_table
from medrobust.report.provenance.lineage import Lineage

REGIMES = ("clean", "adv")
#: Sources in the transfer matrix that are no models: no attack, and each member of the vote attacked on its own.
CLEAN, SEPARATE = "no attack", "per member"


@dataclass(frozen=True)
class Folders:
    """Where the stages wrote; each may be missing in part or whole."""

    prepared: Path
    metrics: Path
    plots: Path
    tuned: Path
    checkpoints: Path


@dataclass(frozen=True)
class Run:
    """All results of one run, by name.

    Attributes:
        header, audit, split, ensemble: JSON records ({} if missing).
        tune: backbone -> record; best: backbone -> chosen hyper-parameters.
        train: (backbone, regime) -> record; cards: (backbone, regime) -> card of the checkpoint.
        attack: (model, regime, suite) -> record.
        checks: (model or vote, regime) -> what the checklist found.
        curves: (model, regime, suite) -> table of eps, robust_accuracy, low, high.
        detect: (model, regime) -> record of a guarded model; drawn: the same -> table of points by name.
        explain: (model, regime) -> record of an explained model.
        methods: ways to vote -> record; attacked: those beside the one in force that suites attack.
        votes: (method, suite) -> record of such an attack.
        transfer: record; crossings: (suite, eps) -> table of sources and judges.
        history: (backbone, regime) -> table; trials: backbone -> table.
        confusion: (model, regime) -> table of `actual` and `predicted` names, a row a clean test image.
        missing: files that should be there; foreign: file -> why it belongs to another run and was not read.
        lineage: what dvc.lock says; None where there is no dvc.lock to check against.
        regime: of the ensemble, as params.yaml has it.
    """

    backbones: list[str]
    suites: list[str]
    header: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    train: dict[tuple[str, str], Any] = field(default_factory=dict)
    cards: dict[tuple[str, str], Any] = field(default_factory=dict)
    attack: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    checks: dict[tuple[str, str], Any] = field(default_factory=dict)
    curves: dict[tuple[str, str, str], pd.DataFrame] = field(default_factory=dict)
    history: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    confusion: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    trials: dict[str, pd.DataFrame] = field(default_factory=dict)
    detect: dict[tuple[str, str], Any] = field(default_factory=dict)
    methods: dict[str, Any] = field(default_factory=dict)
    attacked: list[str] = field(default_factory=list)
    votes: dict[tuple[str, str], Any] = field(default_factory=dict)
    transfer: dict[str, Any] = field(default_factory=dict)
    crossings: dict[tuple[str, float], pd.DataFrame] = field(default_factory=dict)
    explain: dict[tuple[str, str], Any] = field(default_factory=dict)
    drawn: dict[tuple[str, str], dict[str, pd.DataFrame]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    lineage: Lineage | None = None
    regime: str = "adv"

    def models(self) -> Iterator[tuple[str, str]]:
        """Every (model, regime) that is attacked, the ensemble last."""
        for backbone in self.backbones:
            for regime in REGIMES:
                yield backbone, regime
        yield self.vote()

    def vote(self) -> tuple[str, str]:
        """The vote among the models."""
        return "ensemble", self.regime

    def clean(self, model: str, regime: str) -> dict[str, Any]:
        """A model's record of clean test images; {} if missing."""
        found: dict[str, Any] = self.ensemble if model == "ensemble" else self.train.get((model, regime), {})
        return found

    def judged(self, source: str, model: str, regime: str) -> dict[tuple[str, float], dict[Any, Any]]:
        """What a model makes of images that were made on `source`: (suite, eps) -> row of the transfer matrix.

        Args:
            source: `CLEAN`, `SEPARATE` or a name as `name_of` gives it.
            model, regime: who judges.
        """
        wanted = (source, name_of(model, regime))
        return {
            cell: row
            for cell, matrix in self.crossings.items()
            for row in matrix.to_dict("records")
            if (row["source"], row["judge"]) == wanted
        }

    def fewest(self, name: str | None = None) -> int | None:
        """How many patients test has, or has of one class; None if that is not known.

        Images without a patient's id are patients of their own to an evaluation, and none to the split.
        """
        part = self.split.get("test", {})
        if name:
            return part.get("patients_by_class", {}).get(name) or None
        counts = [record["patients"] for record in self.attack.values() if record.get("patients")]
        return min(counts, default=part.get("patients") or None)

    def classes(self) -> list[str]:
        """The classes that models know: the header's, less those that merging left empty."""
        named: list[str] = self.header.get("classes", [])
        return [name for name in named if not self.split or any(part.get(name) for part in self.split.values())]

    def trained_at(self) -> dict[str, float]:
        """Backbone -> radius of its adversarial training, of those whose card tells it."""
        known = {
            name: card.get("params", {}).get("adv", {})
            for (name, regime), card in self.cards.items()
            if regime == "adv"
        }
        return {name: float(adv["eps"]) for name, adv in known.items() if "eps" in adv}

    def at(self, model: str, regime: str, suite: str) -> str | None:
        """The radius of an evaluation's grid that is nearest to that of training, as its record spells it.

        Training's is that of the backbone's card; of the vote, and where there is no such card, the largest of
        all; 0 if none is known.
        """
        grid = self.attack.get((model, regime, suite), {}).get("robust_accuracy", {})
        radii = self.trained_at()
        eps = radii.get(model, max(radii.values(), default=0.0))
        return min(grid, key=lambda radius: abs(float(radius) - eps)) if grid else None

    def verdict_of(self, model: str, regime: str, suite: str) -> str:
        """The checklist's verdict of one evaluation; `unchecked` where there is none."""
        suites = self.checks.get((model, regime), {}).get("suites", {})
        return str(suites.get(suite, {}).get("verdict", "unchecked"))

    def verdict(self, *model: str) -> str:
        """The worst checklist verdict of all attack evaluations, or of those of one `model, regime`."""
        votes = ((vote_of(method), self.regime, suite) for method, suite in self.votes)
        found = {self.verdict_of(*key) for key in (*self.attack, *votes) if not model or key[:2] == model}
        worst = next((word for word in ("invalid", "unchecked", "suspect") if word in found), None)
        return worst or ("no problem found" if found else "missing")


def name_of(model: str, regime: str) -> str:
    """A model's name in the transfer matrix and among the members of the vote."""
    return model if model == "ensemble" else f"{model}-{regime}"


def vote_of(method: str) -> str:
    """The name of a method that is not in force, beside those of models."""
    return f"{method} vote"


class Reader:
    """Reads a file if it is there and belongs to the run; else notes why not."""

    def __init__(self, run: Run) -> None:
        self.lineage, self.missing, self.foreign = run.lineage, run.missing, run.foreign

    def record(self, path: Path) -> Any:
        """A JSON record, {} if it cannot be used."""
        return read_json(path) if self.usable(path) else {}

    def metrics(self, path: Path) -> dict[str, Any]:
        """The record of a metrics file, {} if it cannot be used."""
        return read_metrics(path) if self.usable(path) else {}

    def table(self, path: Path) -> pd.DataFrame | None:
        """A table, None if it cannot be used."""
        return read_table(path) if self.usable(path) else None

    def usable(self, path: Path) -> bool:
        """Whether a file is there and of the run; what is not is noted."""
        if not path.is_file():
            self.missing.append(str(path))
            return False
        if self.lineage and (reason := self.lineage.doubt(path)):
            self.foreign[str(path)] = reason
            return False
        return True


def collect(
    folders: Folders, backbones: list[str], suites: list[str], lineage: Lineage | None = None, vote: str = "adv"
) -> Run:
    """Read a run's records and tables.

    Args:
        folders: where they are.
        backbones, suites: the names in params.yaml; files of other names are not looked at.
        lineage: which files belong to the run; None takes every file as it is.
        vote: regime of the ensemble.
    """
    run = collect_models(folders, backbones, suites, lineage, vote)
    reader = Reader(run)
    run.ensemble.update(reader.metrics(folders.metrics / "ensemble.json"))
    _read_attacks(run, reader, folders, *run.vote())
    return run


def collect_models(
    folders: Folders, backbones: list[str], suites: list[str], lineage: Lineage | None = None, vote: str = "adv"
) -> Run:
    """The same without the vote: the data, the backbones, and what suites made of them."""
    run = Run(backbones, suites, lineage=lineage, regime=vote)
    reader = Reader(run)
    run.header.update(reader.record(folders.prepared / "header.json"))
    for name, target in (("audit", run.audit), ("split", run.split)):
        target.update(reader.metrics(folders.metrics / f"{name}.json"))
    for backbone in backbones:
        _read_backbone(run, reader, folders, backbone)
        for regime in REGIMES:
            _read_attacks(run, reader, folders, backbone, regime)
    return run


def _read_backbone(run: Run, reader: Reader, folders: Folders, backbone: str) -> None:
    run.tune[backbone] = reader.metrics(folders.metrics / "tune" / f"{backbone}.json")
    run.best[backbone] = reader.record(folders.tuned / backbone / "best.json")
    if (trials := reader.table(folders.plots / "tune" / backbone / "trials.csv")) is not None:
        run.trials[backbone] = trials
    for regime in REGIMES:
        run.train[backbone, regime] = reader.metrics(folders.metrics / "train" / f"{backbone}-{regime}.json")
        run.cards[backbone, regime] = reader.record(folders.checkpoints / backbone / regime / "card.json")
        folder = folders.plots / "train" / f"{backbone}-{regime}"
        for target, name in ((run.history, "history"), (run.confusion, "confusion")):
            if (found := reader.table(folder / f"{name}.csv")) is not None:
                target[backbone, regime] = found


def _read_attacks(run: Run, reader: Reader, folders: Folders, model: str, regime: str) -> None:
    for suite in run.suites:
        key = (model, regime, suite)
        if entry := reader.metrics(folders.metrics / "attack" / f"{'-'.join(key)}.json"):
            run.attack[key] = entry
        if (curve := reader.table(folders.plots / "attack" / f"{'-'.join(key)}.csv")) is not None:
            run.curves[key] = curve
    run.checks[model, regime] = reader.metrics(folders.metrics / "checks" / f"{model}-{regime}.json")
