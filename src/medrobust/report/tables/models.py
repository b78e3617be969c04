"""The report's tables, as rows of text that Markdown, HTML and LaTeX share."""

import math
from typing import Any

from medrobust.core.metrics import curve_columns
from medrobust.report.collect import REGIMES, Run, name_of, vote_of
from medrobust.report.tables.cells import NONE, Table, number, ranged, with_interval

#: How a regime is called in a table.
TRAINING = {"clean": "clean", "adv": "adversarial"}


def clean_table(run: Run, confidence: float) -> Table:
    """Clean test results of every model and the ensemble."""
    columns = ["model", "training", "n", "patients", "balanced accuracy", "accuracy", "macro F1", "AUROC"]
    columns += [*(["kappa²"] if graded(run) else []), "ECE"]
    rows = []
    for model, regime in run.models():
        record = run.clean(model, regime)
        cells = [str(record.get(name, NONE)) for name in ("n", "patients")]
        names = ["balanced_accuracy", "accuracy", "macro_f1", "auroc"]
        names += [*(["quadratic_kappa"] if graded(run) else []), "ece"]
        rows.append([model, TRAINING[regime], *cells, *(with_interval(record, name) for name in names)])
    note = f"Test images; brackets are {confidence:.0%} intervals over whole patients."
    note += " kappa² is Cohen's kappa with quadratic weights." if graded(run) else ""
    note += " ECE is the expected calibration error of the top class; it and AUROC have no interval."
    return Table("Clean images", columns, rows, note).warned(confidence, run.fewest())


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
        verdict = run.verdict_of(model, regime, suite)
        rows.append([model, TRAINING[regime], number(record["clean_accuracy"]), *cells, verdict])
    columns = ["model", "training", "clean", *(f"ε = {eps}" for eps in grid), "checklist"]
    note = (
        f"Accuracy under the per-image worst case of the suite; brackets are {confidence:.0%} intervals over "
        "whole patients. ε in [0, 1] pixel units. A number that the checklist calls invalid must not be cited."
    )
    return Table(f"Attack suite: {suite}", columns, rows, note).warned(confidence, run.fewest())


def _robust(record: dict[str, Any], eps: str) -> str:
    interval = record.get("robust_accuracy_ci", {}).get(eps, (None, None))
    return ranged(record["robust_accuracy"].get(eps), *interval)


def backbone_table(run: Run, model: str, confidence: float) -> Table:
    """All numbers of one backbone: a row for clean images and for each suite and radius, under either training."""
    classes = run.classes()
    rows = []
    for regime in REGIMES if model != "ensemble" else (run.regime,):
        record = run.clean(model, regime)
        cells = [str(record.get(name, NONE)) for name in ("n", "patients")]
        names = ["accuracy", "balanced_accuracy", "macro_f1"]
        names += [*(["quadratic_kappa"] if graded(run) else []), *(f"recall_{name}" for name in classes)]
        cells += [with_interval(record, name) for name in [*names, "auroc", "ece", "nll"]]
        rows.append([TRAINING[regime], "clean", NONE, *cells])
        for suite in run.suites:
            rows += [[TRAINING[regime], suite, *cells] for cells in _attacked(run, (model, regime, suite), names)]
        rows += [[TRAINING[regime], *cells] for cells in _last_steps(run, (model, regime), names)]
    columns = ["training", "images", "ε", "n", "patients", "accuracy", "balanced accuracy", "macro F1"]
    columns += [
        *(["kappa²"] if graded(run) else []),
        *(f"recall {name}" for name in classes),
        "AUROC",
        "ECE",
        "log-loss",
    ]
    note = (
        f"Brackets are {confidence:.0%} intervals over patients. Attacked rows count an image as wrong if any "
        "attack of the suite fools it; AUROC, ECE and log-loss have no interval, and need scores, which a worst "
        "case over attacks does not have."
    )
    if run.crossings:
        note += " “To the last step”: its attacks on fewer images, none of which stops where the model errs."
    return Table(f"{model}: all results", columns, rows, note, folded=True).warned(confidence)


def _attacked(run: Run, key: tuple[str, str, str], names: list[str]) -> list[list[str]]:
    """Rows of one evaluation from ε on, one a radius."""
    record, curve = run.attack.get(key), run.curves.get(key)
    if record is None or curve is None:
        return [[NONE, "missing", *[NONE] * (len(names) + 4)]]
    sample = [str(record.get(name, NONE)) for name in ("n", "patients")]
    rows = []
    for point in curve.to_dict("records"):
        cells = [robust(point, name) for name in names]
        rows.append([f"{point['eps']:g}", *sample, *cells, NONE, NONE, NONE])
    return rows


def robust(point: dict[Any, Any], name: str) -> str:
    """A measure of an attack's curve at one radius, with its interval."""
    return ranged(*(point.get(column) for column in curve_columns(name)))


def _last_steps(run: Run, model: tuple[str, str], names: list[str]) -> list[list[str]]:
    """Rows of the images that were made on this model itself for the transfer matrix, from the images on."""
    sample = [str(run.transfer.get(name, NONE)) for name in ("n", "patients")]
    rows = []
    for (suite, eps), row in run.judged(name_of(*model), *model).items():
        accuracy = ranged(row["accuracy"], row["low"], row["high"])
        scores = [NONE, number(row["ece"]), number(row["log_loss"])]
        rows.append(
            [f"{suite}, to the last step", f"{eps:g}", *sample, accuracy, *[NONE] * (len(names) - 1), *scores]
        )
    return rows


def split_table(run: Run) -> Table:
    """Images and patients of each split, by class."""
    classes = run.header.get("classes", [])
    rows = []
    for name, part in run.split.items():
        people = part.get("patients_by_class", {})
        cells = [f"{part.get(label, 0)} ({people.get(label, NONE)})" for label in classes]
        rows.append([name, str(part["images"]), str(part["patients"]), *cells])
    return Table("Split", ["split", "images", "patients", *classes], rows, "Of each class: images (patients).")


def tuning_table(run: Run) -> Table:
    """The chosen hyper-parameters of each backbone."""
    names = ["lr", "optimiser", "batch_size", "scheduler"]
    rows = []
    for backbone in run.backbones:
        best, study = run.best.get(backbone, {}), run.tune.get(backbone, {})
        cells = [f"{best[key]:.2e}" if key == "lr" and key in best else str(best.get(key, NONE)) for key in names]
        found = [number(study.get("best_val_balanced_accuracy")), str(study.get("trials", NONE))]
        rows.append([backbone, *cells, *found, str(study.get("pruned", 0)), str(study.get("fail", 0))])
    note = "Best validation: balanced accuracy on validation images at the end of the best trial."
    return Table(
        "Chosen hyper-parameters", ["model", *names, "best validation", "trials", "pruned", "failed"], rows, note
    )


def trial_tables(run: Run) -> list[Table]:
    """Every trial of each backbone's study."""
    found = []
    for backbone, trials in run.trials.items():
        rows = [[_short(value) for value in row] for row in trials.itertuples(index=False)]
        found.append(Table(f"Trials: {backbone}", [str(name) for name in trials.columns], rows, folded=True))
    return found


def cost_table(run: Run) -> Table:
    """Seconds of each model's stages, attacked images a second, and gradients where they were counted."""
    named = [
        (model, regime, [run.attack.get((model, regime, suite), {}) for suite in run.suites])
        for model, regime in run.models()
    ]
    for method in run.attacked:
        named.append((vote_of(method), run.regime, [run.votes.get((method, suite), {}) for suite in run.suites]))
    rows = []
    for model, regime, records in named:
        row = [model, TRAINING[regime], _cell(run.clean(model, regime).get("seconds"))]
        for record in records:
            seconds, images = record.get("seconds"), record.get("n", 0) * len(record.get("robust_accuracy", {}))
            row += [_cell(seconds), f"{images / seconds:.1f}" if seconds else NONE]
            row += [_cell(record.get("gradient_evaluations"))]
        rows.append(row)
    columns = ["model", "training", "training, s"]
    columns += [f"{suite}{what}" for suite in run.suites for what in (", s", ", images/s", ", gradients")]
    note = "Images a second count an image once a radius. Gradients: forward and backward passes of single images."
    return Table("Cost", columns, rows, note)


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
                advice = [record.get(name, {}).get(check, NONE) for name in ("means", "remedies")]
                rows.append([model, TRAINING[regime], suite, check, outcome, measured, *advice])
    note = (
        "A failed check makes a number invalid, a warning makes it suspect. The others passed, or had nothing to "
        "ask (no image stands, no ensemble): metrics/checks has them all, docs/checklist.md the thresholds."
        + _power(run)
    )
    columns = ["model", "training", "suite", "check", "outcome", "measured", "what it means", "what to do"]
    return Table("Checklist: what did not pass", columns, rows, note, folded=True)


def _power(run: Run) -> str:
    """How small a fault the checks on samples can have missed: one that shows with a chance below 95 %."""
    samples = [record["images"] for record in run.checks.values() if record.get("images")]
    if not samples:
        return ""
    return (
        f" Checks that attack tried at most {min(samples)} images of a model (attacks.check_images): a fault that "
        f"shows on fewer than {1 - 0.05 ** (1 / min(samples)):.0%} of the standing images can have escaped them."
    )


def verdicts_table(run: Run) -> Table:
    """The checklist's verdict of every evaluation."""
    rows = [
        [model, TRAINING[regime], *(run.verdict_of(model, regime, suite) for suite in run.suites)]
        for model, regime in run.models()
    ]
    return Table("Checklist: verdicts", ["model", "training", *run.suites], rows)


def short_table(run: Run) -> Table:
    """The results in one look: clean and robust accuracy near the training radius."""
    radii = {run.at(*key) for key in run.attack}
    common = f", ε {next(iter(radii))}" if len(radii) == 1 else ""
    rows = []
    for model, regime in run.models():
        cells = []
        for suite in run.suites:
            key = (model, regime, suite)
            near = run.at(*key)
            value = _robust(run.attack[key], near) if near else "missing"
            cells.append(value if common or not near else f"{value} (ε {near})")
        clean = run.clean(model, regime)
        named = [with_interval(clean, name) for name in ("balanced_accuracy", "accuracy")]
        rows.append([model, TRAINING[regime], *named, *cells])
    columns = ["model", "training", "clean balanced accuracy", "clean accuracy"]
    columns += [f"{suite}{common}" for suite in run.suites]
    return Table(
        "Results", columns, rows, "Under attack: robust accuracy at the radius nearest to that of training."
    )


def plain(table: Table) -> str:
    """The table in aligned columns for a terminal."""
    grid = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in grid)


def graded(run: Run) -> bool:
    """Whether the classes are grades and more than two, so that a weighted kappa says something."""
    return bool(run.header.get("ordered")) and len(run.classes()) > 2


def _short(value: object) -> str:
    """A cell of a table that was read: at most four digits of a float, a dash for nothing."""
    if isinstance(value, float):
        return NONE if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _cell(value: object) -> str:
    return NONE if value is None else str(value)
