"""Two commits' results with values of the test's own, and the comment on them as text."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.params import preset
from tools.comment.compare import PairedTest, compare
from tools.comment.render import render
from tools.comment.results import Results
from tools.comment.verdict import COMMITTED, Verdict
from tools.comment.workflow_run import WorkflowRun

OUTS = {"data/prepared": "1.dir", "data/split.csv": "2"}
#: What a run of the workflow leaves when nothing had to run.
QUIET, GOOD = WorkflowRun(mode="full"), Verdict(COMMITTED)


def results(
    *, backbones: tuple[str, ...] = ("net",), suites: Mapping[str, tuple[str, ...]] | None = None,
    gain: float = 0.0, width: float = 0.05, outs: Mapping[str, str] | None = None, audit: str = "clean",
    verdict: str = "suspect", **params: Any,
) -> Results:  # fmt: skip
    """The results of a commit: robust accuracy 0.5 + gain, and clean balanced accuracy 0.8 + gain, of every model.

    Args:
        backbones: names.
        suites: name -> radii; all Linf.
        gain: added to every value.
        width: half of every interval.
        outs: of dvc.lock.
        audit: verdict on the split.
        verdict: of the checklist, on every evaluation.
        params: blocks that replace those of the default.
    """
    radii = suites or {"pgd": ("0.01", "0.02")}
    content = preset() | params
    content["models"] = {name: {"timm": name} for name in backbones}
    content["attacks"]["suites"] = {name: {"norm": "Linf"} for name in radii}
    found = Results(content, {}, dict(OUTS if outs is None else outs), {"audit": "torch 2.11.0"})
    records: dict[str, dict[str, Any]] = {"audit": {"verdict": audit}}
    for model in found.models():
        clean = {"balanced_accuracy": 0.8 + gain, "balanced_accuracy_ci": [0.8 + gain - width, 0.8 + gain + width]}
        records["ensemble" if model.startswith("ensemble") else f"train/{model}"] = clean
        records[f"checks/{model}"] = {"suites": {suite: {"verdict": verdict} for suite in radii}}
        for suite, grid in radii.items():
            records[f"attack/{model}-{suite}"] = {
                "robust_accuracy": dict.fromkeys(grid, 0.5 + gain),
                "robust_accuracy_ci": {eps: [0.5 + gain - width, 0.5 + gain + width] for eps in grid},
            }
    return replace(found, records=records)


def text(
    base: Results, this: Results, *, run: WorkflowRun = QUIET, verdict: Verdict = GOOD,
    paired: PairedTest | None = None, **options: Any,
) -> str:  # fmt: skip
    """The whole comment."""
    return render(base="main", run=run, comparison=compare(base, this, paired), verdict=verdict, **options)


def above_folds(comment: str) -> str:
    """What stands above the first fold."""
    return comment.partition("\n<details>")[0]
