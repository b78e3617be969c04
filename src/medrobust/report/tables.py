"""The report's tables, as rows of text that Markdown and HTML share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medrobust.report.collect import REGIMES, Run

#: How a regime is called in a table.
TRAINING = {"clean": "clean", "adv": "adversarial"}
#: What stands where a number is missing or not defined.
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A titled table; `note` says what a reader must know of its numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table as GitHub reads it."""
        lines = [f"### {self.title}", "", _line(self.columns), _line("---" for _ in self.columns)]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return NONE if value is None else f"{value:.3f}"


def with_interval(record: dict[str, Any], name: str) -> str:
    """`0.712 [0.65, 0.77]`."""
    if record.get(name) is None:
        return NONE
    low, high = record[f"{name}_ci"]
    return f"{record[name]:.3f} [{low:.2f}, {high:.2f}]"


def clean_table(run: Run, confidence: float) -> Table:
    """Clean test results of every model and the ensemble."""
    columns = [
        "model",
        "training",
        "balanced accuracy",
        "accuracy",
        "macro F1",
        "AUROC",
        "kappa²",
        "ECE",
        "n",
        "patients",
    ]
    rows = []
    for model, regime in run.models():
        record = run.ensemble if model == "ensemble" else run.train.get((model, regime), {})
        cells = [with_interval(record, "balanced_accuracy"), with_interval(record, "accuracy")]
        cells += [number(record.get(name)) for name in ("macro_f1", "auroc", "quadratic_kappa", "ece")]
        cells += [str(record.get(name, NONE)) for name in ("n", "patients")]
        rows.append([model, TRAINING[regime], *cells])
    note = (
        f"Test images; brackets are {confidence:.0%} intervals over whole patients; kappa² has quadratic weights."
    )
    return Table("Clean images", columns, rows, note)


def attack_table(run: Run, suite: str, confidence: float) -> Table:
    """Robust accuracy of every model under one suite, a column a radius."""
    records = {key[:2]: record for key, record in run.attack.items() if key[2] == suite}
    grid = sorted({eps for record in records.values() for eps in record["robust_accuracy"]}, key=float)
    rows = []
    for model, regime in run.models():
        record = records.get((model, regime))
        if record is None:
            rows.append([model, TRAINING[regime], "missing", *[NONE] * len(grid), NONE])
            continue
        cells = [_robust(record, eps) for eps in grid]
        cells += [run.verdict_of(model, regime, suite)]
        rows.append([model, TRAINING[regime], number(record["clean_accuracy"]), *cells])
    columns = ["model", "training", "clean", *(f"ε = {eps}" for eps in grid), "checklist"]
    note = (
        f"Accuracy under the per-image worst case of the suite; brackets are {confidence:.0%} intervals over "
        "whole patients. ε in [0, 1] pixel units. A number that the checklist calls invalid must not be cited."
    )
    return Table(f"Attack suite: {suite}", columns, rows, note)


def _robust(record: dict[str, Any], eps: str) -> str:
    value = record["robust_accuracy"].get(eps)
    if value is None:
        return NONE
    low, high = record["robust_accuracy_ci"][eps]
    return f"{value:.3f} [{low:.2f}, {high:.2f}]"


def split_table(run: Run) -> Table:
    """Images and patients of each split, by class."""
    classes = run.header.get("classes", [])
    rows = [
        [name, str(part["images"]), str(part["patients"]), *(str(part[label]) for label in classes)]
        for name, part in run.split.items()
    ]
    return Table("Split", ["split", "images", "patients", *classes], rows)


def tuning_table(run: Run) -> Table:
    """The chosen hyper-parameters of each backbone."""
    names = ["lr", "optimiser", "batch_size", "scheduler"]
    rows = []
    for backbone in run.backbones:
        best, study = run.best.get(backbone, {}), run.tune.get(backbone, {})
        cells = [f"{best[key]:.2e}" if key == "lr" and key in best else str(best.get(key, NONE)) for key in names]
        found = [number(study.get("best_val_balanced_accuracy")), str(study.get("trials", NONE))]
        rows.append([backbone, *cells, *found, str(study.get("pruned", 0)), str(study.get("fail", 0))])
    return Table("Tuning", ["model", *names, "best validation", "trials", "pruned", "failed"], rows)


def weights_table(run: Run) -> Table:
    """The ensemble's weights."""
    weights = run.ensemble.get("weights", {})
    rows = [[name, number(weight)] for name, weight in weights.items()]
    return Table(
        "Ensemble weights", ["member", "weight"], rows, "Fitted on validation images, clean and attacked."
    )


def cost_table(run: Run) -> Table:
    """Seconds of each model's stages."""
    rows = []
    for model, regime in run.models():
        training = run.train.get((model, regime), {}).get("seconds")
        attacks = [str(run.attack.get((model, regime, suite), {}).get("seconds", NONE)) for suite in run.suites]
        rows.append([model, TRAINING[regime], NONE if training is None else str(training), *attacks])
    return Table("Cost (seconds)", ["model", "training", "train", *run.suites], rows)


def recall_table(run: Run) -> Table:
    """Recall of each class on clean test images."""
    classes = run.header.get("classes", [])
    rows = []
    for backbone in run.backbones:
        for regime in REGIMES:
            record = run.train.get((backbone, regime), {})
            rows.append([backbone, TRAINING[regime], *(number(record.get(f"recall_{name}")) for name in classes)])
    return Table("Recall by class", ["model", "training", *classes], rows)


def checks_table(run: Run) -> Table:
    """Every check of the robustness checklist that did not pass, and what that means."""
    rows = []
    for (model, regime), record in run.checks.items():
        said = [("all", check, line) for check, line in record.get("model", {}).items()]
        for suite, part in record.get("suites", {}).items():
            said += [(suite, check, line) for check, line in part["checks"].items()]
        for suite, check, line in said:
            outcome, measured = line.split(": ", 1)
            if outcome in {"warn", "fail"}:
                rows.append([model, TRAINING[regime], suite, check, outcome, measured, record["means"][check]])
    note = (
        "A failed check makes a number invalid, a warning makes it suspect. The others passed, or had nothing to "
        "ask (no image stands, no ensemble): metrics/checks has them all, docs/checklist.md the thresholds."
    )
    columns = ["model", "training", "suite", "check", "outcome", "measured", "what it means"]
    return Table("Checklist: what did not pass", columns, rows, note)


def verdicts_table(run: Run) -> Table:
    """The checklist's verdict of every evaluation."""
    rows = [
        [model, TRAINING[regime], *(run.verdict_of(model, regime, suite) for suite in run.suites)]
        for model, regime in run.models()
    ]
    return Table("Checklist: verdicts", ["model", "training", *run.suites], rows)


def short_table(run: Run, eps: float) -> Table:
    """The table for the terminal: clean and robust accuracy near the training radius."""
    rows = []
    for model, regime in run.models():
        record = run.ensemble if model == "ensemble" else run.train.get((model, regime), {})
        cells = []
        for suite in run.suites:
            attack = run.attack.get((model, regime, suite))
            near = min(attack["robust_accuracy"], key=lambda e: abs(float(e) - eps)) if attack else None
            cells.append(f"{attack['robust_accuracy'][near]:.3f} (ε {near})" if attack and near else "missing")
        rows.append([model, TRAINING[regime], number(record.get("balanced_accuracy")), *cells])
    return Table("Results", ["model", "training", "clean balanced accuracy", *run.suites], rows)


def plain(table: Table) -> str:
    """The table in aligned columns for a terminal."""
    grid = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in grid)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
