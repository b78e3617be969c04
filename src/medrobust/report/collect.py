"""Read what the stages wrote. Names come from params.yaml; what is missing is named, never filled in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.records import read_json, read_table

REGIMES = ("clean", "adv")


@dataclass(frozen=True)
class Run:
    """All results of one run, by name.

    Attributes:
        header, audit, split, ensemble: JSON records ({} if missing).
        tune: backbone -> record; best: backbone -> chosen hyper-parameters.
        train: (backbone, regime) -> record.
        attack: (model, regime, suite) -> record; the ensemble's regime is `adv`.
        checks: (model, regime) -> what the checklist found.
        curves: (model, regime, suite) -> table of eps, robust_accuracy, low, high.
        history, confusion: (backbone, regime) -> table.
        detect: (backbone, regime) -> record of a guarded model.
        missing: files that should be there.
    """

    backbones: list[str]
    suites: list[str]
    header: dict[str, Any]
    audit: dict[str, Any]
    split: dict[str, Any]
    ensemble: dict[str, Any]
    tune: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    train: dict[tuple[str, str], Any] = field(default_factory=dict)
    attack: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    checks: dict[tuple[str, str], Any] = field(default_factory=dict)
    curves: dict[tuple[str, str, str], pd.DataFrame] = field(default_factory=dict)
    history: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    confusion: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    detect: dict[tuple[str, str], Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def models(self) -> Iterator[tuple[str, str]]:
        """Every (model, regime) that is attacked, the ensemble last."""
        for backbone in self.backbones:
            for regime in REGIMES:
                yield backbone, regime
        yield "ensemble", "adv"

    def verdict_of(self, model: str, regime: str, suite: str) -> str:
        """The checklist's verdict of one evaluation; `unchecked` where there is none."""
        suites = self.checks.get((model, regime), {}).get("suites", {})
        return str(suites.get(suite, {}).get("verdict", "unchecked"))

    def verdict(self) -> str:
        """The worst checklist verdict of all attack evaluations."""
        found = {self.verdict_of(*key) for key in self.attack}
        return next((word for word in ("invalid", "unchecked", "suspect") if word in found), "no problem found")


def collect(header: Path, metrics: Path, plots: Path, tuned: Path, backbones: list[str], suites: list[str]) -> Run:
    """Read a run's records and tables."""
    missing: list[str] = []

    def record(path: Path) -> Any:
        if not path.is_file():
            missing.append(str(path))
            return {}
        return read_json(path)

    def table(path: Path) -> pd.DataFrame | None:
        if not path.is_file():
            missing.append(str(path))
            return None
        return read_table(path)

    run = Run(
        backbones, suites, record(header), record(metrics / "audit.json"), record(metrics / "split.json"),
        record(metrics / "ensemble.json"), missing=missing,
    )  # fmt: skip
    for backbone in backbones:
        run.tune[backbone] = record(metrics / "tune" / f"{backbone}.json")
        run.best[backbone] = record(tuned / backbone / "best.json")
        for regime in REGIMES:
            run.train[backbone, regime] = record(metrics / "train" / f"{backbone}-{regime}.json")
            folder = plots / "train" / f"{backbone}-{regime}"
            for target, name in ((run.history, "history"), (run.confusion, "confusion")):
                if (found := table(folder / f"{name}.csv")) is not None:
                    target[backbone, regime] = found
    for model, regime in run.models():
        run.checks[model, regime] = record(metrics / "checks" / f"{model}-{regime}.json")
        for suite in suites:
            key = (model, regime, suite)
            if entry := record(metrics / "attack" / f"{'-'.join(key)}.json"):
                run.attack[key] = entry
            if (curve := table(plots / "attack" / f"{'-'.join(key)}.csv")) is not None:
                run.curves[key] = curve
    return run
