"""The results that one commit holds, by the names in its params.yaml; files of other names do not count."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medrobust.core.errors import UserError
from medrobust.core.params.yaml_file import read_params
from medrobust.core.records import read_metrics, read_versions
from medrobust.report.run import REGIMES
from tools.same_data import read_lock

#: Verdicts of the checklist, the worst first.
VERDICTS = ("invalid", "missing", "suspect", "no problem found")
#: Outputs of dvc.lock that identify the test images.
DATA = {"data": "data/prepared", "split": "data/split.csv"}


class Value(NamedTuple):
    """A measure with its interval [low, high]; None without one."""

    value: float
    interval: list[float] | None


@dataclass(frozen=True)
class Results:
    """Params, records and hashes of one commit."""

    params: dict[str, Any]
    records: dict[str, dict[str, Any]]  # path below metrics, without suffix -> record
    outs: dict[str, str]  # path -> hash in dvc.lock
    versions: dict[str, str]  # path below metrics -> versions of the packages that computed it, in one line

    @property
    def regime(self) -> str:
        """The regime of the ensemble's members."""
        return str(self._block("ensemble").get("regime", "adv"))

    def models(self) -> list[str]:
        """The ensemble, then the backbones trained adversarially, then those trained on clean images."""
        names = [f"{name}-{regime}" for regime in reversed(REGIMES) for name in self._block("models")]
        return [f"ensemble-{self.regime}", *names]

    def suites(self) -> dict[str, str]:
        """Suite -> norm."""
        suites = self._block("attacks").get("suites") or {}
        return {name: str((suite or {}).get("norm")) for name, suite in suites.items()}

    def training_eps(self) -> float:
        """`adv.eps`."""
        return float(self._block("adv").get("eps", 0))

    def clean(self, model: str) -> Value | None:
        """Balanced accuracy on clean test images."""
        record = self.records.get("ensemble" if model.startswith("ensemble-") else f"train/{model}", {})
        return _value(record.get("balanced_accuracy"), record.get("balanced_accuracy_ci"))

    def radii(self, suite: str) -> set[str]:
        """The radii at which every evaluated model has a robust accuracy."""
        grids = [set(self._robust(model, suite).get("robust_accuracy", {})) for model in self.models()]
        return set.intersection(*filter(None, grids)) if any(grids) else set()

    def robust(self, model: str, suite: str, eps: str) -> Value | None:
        """Robust accuracy at a radius."""
        record = self._robust(model, suite)
        found = record.get("robust_accuracy", {}).get(eps)
        return _value(found, record.get("robust_accuracy_ci", {}).get(eps))

    def audit(self) -> str:
        """The verdict on the split."""
        return str(self.records.get("audit", {}).get("verdict", "missing"))

    def checklist(self, model: str) -> str:
        """The worst verdict on the evaluations of a model by the suites of params.yaml."""
        checked = self.records.get(f"checks/{model}", {}).get("suites", {})
        found = {str(checked.get(suite, {}).get("verdict", "missing")) for suite in self.suites()}
        return next((verdict for verdict in VERDICTS if verdict in found), "missing")

    def worst_checklist(self) -> str:
        """The worst verdict on any model."""
        return min(map(self.checklist, self.models()), key=VERDICTS.index)

    def _robust(self, model: str, suite: str) -> dict[str, Any]:
        return self.records.get(f"attack/{model}-{suite}", {})

    def _block(self, name: str) -> dict[str, Any]:
        return self.params.get(name) or {}


def read_results(folder: Path) -> Results:
    """Read the committed files below the top folder of a checkout; what is missing or damaged is left out."""
    try:
        params = read_params(folder / "params.yaml")
    except UserError:
        params = {}
    records, versions = {}, {}
    for path in sorted((folder / "metrics").rglob("*.json")):
        name = path.relative_to(folder / "metrics").with_suffix("").as_posix()
        try:
            records[name], versions[name] = read_metrics(path), read_versions(path)
        except UserError:
            continue
    return Results(params, records, _outs(folder / "dvc.lock"), versions)


def _value(value: float | None, interval: list[float] | None) -> Value | None:
    return None if value is None else Value(value, interval)


def _outs(lock: Path) -> dict[str, str]:
    """Output -> hash; {} if there is no dvc.lock or it holds the marks of a merge conflict."""
    try:
        stages = read_lock(lock.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, AttributeError):
        return {}
    outs = (out for stage in stages.values() for out in stage.get("outs", []))
    return {out["path"]: out["md5"] for out in outs if "md5" in out}
