"""Replay a published study as published and as it should be, and write one CSV (docs/studies.md).

`make replay STUDY=lerman2024 SIZE=cpu`. studies/<STUDY>.yaml describes the study: what the second column changes,
the published numbers, and the verdicts that audit and checklist must give. Each column runs in a clone of its own
under tmp/repeats. An interrupted command continues where it was; a column that has no results is left empty.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml
from pydantic import Field

from medrobust.core.errors import UserError
from medrobust.core.params.base import Block
from medrobust.core.params.schema import Params, check_params
from medrobust.core.params.yaml_file import parse_params, read_params
from medrobust.core.records import read_metrics
from medrobust.core.runtime import say
from medrobust.report.run import REGIMES
from tools.preset import ROOT, render
from tools.repeat import TABLES, prepare_clone, reproduce, write_table

#: One file per study.
STUDIES = ROOT / "studies"
#: The columns of a replay, with their headings.
COLUMNS = {"published": "replay as published", "corrected": "replay as it should be"}
#: Suffix of the preset of each size.
SIZES = {"": "", "gpu": "", "cpu": "-cpu"}
#: (model, measure) -> value
Results = dict[tuple[str, str], str]


class PublishedNumber(Block):
    """A number of the paper, and the model and measure of the replay that correspond to it."""

    model: str
    measure: str
    value: float


class Expected(Block):
    """What the replay as published must be blamed for, and the corrected one not.

    Attributes:
        audit: parts of the reasons of the audit.
        suites: checks that must not pass, by suite.
        trainings: backbones whose training attack cannot reach its radius.
    """

    audit: list[str]
    suites: dict[str, list[str]]
    trainings: list[str] = Field(default_factory=list)


class Study(Block):
    """A file of studies/: changes of the params for the second column (and for size cpu), numbers and verdicts."""

    title: str
    corrected: dict[str, Any]
    corrected_cpu: dict[str, Any]
    published: list[PublishedNumber]
    expected: Expected


def studies() -> list[str]:
    """The names of all studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def read_study(name: str) -> Study:
    """Read a study.

    Raises:
        UserError: there is no such study.
    """
    if name not in studies():
        remedy = f"Use `make replay STUDY=...` with one of: {', '.join(studies())}"
        raise UserError("STUDY", f"there is no study {name!r}", remedy)
    return Study.model_validate(read_params(STUDIES / f"{name}.yaml"))


def params_texts(name: str, size: str) -> dict[str, str]:
    """Column -> the text of params.yaml."""
    study, preset = read_study(name), f"{name}{SIZES[size]}"
    overlays = [study.corrected, *([study.corrected_cpu] if size == "cpu" else [])]
    corrected = render(preset, overlays=tuple(dumps_yaml(overlay) for overlay in overlays if overlay))
    return {"published": render(preset), "corrected": corrected}


def collect(metrics: Path, params: Params) -> Results:
    """Accuracies and verdicts of a run; those of stages that did not run are left out."""
    ensemble = f"ensemble-{params.ensemble.regime}"
    results: Results = {}
    if audit := _read(metrics / "audit.json"):
        results["data", "audit"] = f"{audit['verdict']}: {'; '.join(audit['reasons']) or 'nothing found'}"
    for model in [*(f"{backbone}-{regime}" for backbone in params.models for regime in REGIMES), ensemble]:
        clean = _read(metrics / "ensemble.json" if model == ensemble else metrics / "train" / f"{model}.json")
        _add_rate(results, model, "clean accuracy", clean, "accuracy")
        _add_rate(results, model, "clean balanced accuracy", clean, "balanced_accuracy")
        for suite in params.attacks.suites:
            record = _read(metrics / "attack" / f"{model}-{suite}.json")
            for eps, value in record.get("robust_accuracy", {}).items():
                results[model, f"{suite} {eps}"] = _with_interval(value, record["robust_accuracy_ci"][eps])
        results |= _verdicts(model, _read(metrics / "checks" / f"{model}.json"))
    for row in _read(metrics / "transfer.json").get("per_member", []):
        measure = f"each member alone {params.transfer.suite} {row['eps']:g}"
        results[ensemble, measure] = _with_interval(row["accuracy"], row["accuracy_ci"])
    return results


def _verdicts(model: str, record: Mapping[str, Any]) -> Results:
    """The verdict on each suite of a model, with the checks that failed or warned."""
    found: Results = {}
    for suite, part in record.get("suites", {}).items():
        lines = {**record["model"], **part["checks"]}
        kinds = [(name, kind) for kind in ("fail", "warn") for name, line in lines.items() if line[:4] == kind]
        blamed = [f"{name} ({kind})" for name, kind in kinds]
        found[model, f"verdict on {suite}"] = f"{part['verdict']}: {', '.join(blamed) or 'every check passed'}"
    return found


def _add_rate(results: Results, model: str, measure: str, record: Mapping[str, Any], key: str) -> None:
    if record.get(key) is not None:
        results[model, measure] = _with_interval(record[key], record[f"{key}_ci"])


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _read(path: Path) -> dict[str, Any]:
    return read_metrics(path) if path.is_file() else {}


def table(study: Study, runs: Mapping[str, Results]) -> list[dict[str, str]]:
    """One row per model and measure: the published number and each column; empty where there is none."""
    numbers = {(number.model, number.measure): f"{number.value:g}" for number in study.published}
    keys = dict.fromkeys([*numbers, *(key for results in runs.values() for key in results)])
    return [
        {"model": model, "measure": measure, "published": numbers.get((model, measure), "")}
        | {heading: runs.get(column, {}).get((model, measure), "") for column, heading in COLUMNS.items()}
        for model, measure in keys
    ]


def main() -> None:
    """Run the columns, writing the table after each; exit 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help=f"one of: {', '.join(studies())}")
    parser.add_argument("--size", choices=[*SIZES], default="", help="cpu: reduced to two CPU cores")
    parser.add_argument("--columns", nargs="+", choices=[*COLUMNS], default=[*COLUMNS])
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time")
    args = parser.parse_args()
    root, study, texts = Path.cwd(), read_study(args.study), params_texts(args.study, args.size)
    name, runs = f"{args.study}{SIZES[args.size]}", {}
    path = TABLES / f"replay-{name}.csv"
    for column in args.columns:
        params = check_params(parse_params(texts[column], column), column)
        clone = prepare_clone(root, f"{name}-{column}", {}, texts[column])
        shutil.rmtree(clone / "metrics", ignore_errors=True)  # of the committed run, which has other stages
        say(f"{COLUMNS[column]}: {clone}")
        done = reproduce(clone, args.jobs)
        runs[column] = collect(clone / "metrics", params)
        write_table(path, table(study, runs))
        if not done:
            sys.exit(f"{COLUMNS[column]} failed. Run the command again to continue; the table has what is done")
    say(f"written: {path}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
