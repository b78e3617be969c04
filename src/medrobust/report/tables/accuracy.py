"""Tables of accuracy, clean and under attack: one suite, one backbone, and all models in short."""

from typing import Any

from medrobust.core.metrics import curve_columns
from medrobust.core.params.attacks import SuiteParams
from medrobust.core.text import one_line
from medrobust.report.run import REGIMES, Evaluation, Model, Run, name_of
from medrobust.report.tables.constant import ACCURACY, AUROC, BALANCED, constant_row
from medrobust.report.tables.reliability import CALIBRATION_ERROR, LINE, calibration_error, line_cells
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval, with_interval_at
from medrobust.report.templates import table_note

#: Name of a regime in tables.
TRAINING = {"clean": "clean", "adv": "adversarial"}


def clean_table(run: Run, confidence: float) -> Table:
    """Results of every model and the ensemble on clean test images."""
    kappa = _kappa(run)
    names = ["balanced_accuracy", "accuracy", "macro_f1", "auroc", *kappa, "confidence_gap"]
    rows = []
    for model, regime in run.models():
        record = run.clean_record(model, regime)
        measures = (with_interval(record, name) for name in names)
        rows.append([model, TRAINING[regime], *_sample(record), *measures, calibration_error(record)])
    columns = ["model", "training", "n", "patients", "balanced accuracy", "accuracy", "macro F1", "AUROC"]
    columns += [*kappa.values(), LINE["confidence_gap"], CALIBRATION_ERROR]
    note = table_note("clean", confidence=confidence, kappa=kappa)
    return Table("Clean images", columns, rows, note).with_warning()


def attacks_text(suite: SuiteParams) -> str:
    """The attacks of a suite as in params.yaml; values that are not named there have the default of the attack."""
    texts = []
    for entry in suite.attacks:
        values = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "name")
        texts.append(f"{entry['name']} ({values})" if values else str(entry["name"]))
    return "; ".join(texts)


def attack_table(run: Run, suite: str, confidence: float) -> Table:
    """Robust accuracy of every model under one suite, one column per radius."""
    records, grid = run.attacks.of_suite(suite)
    first = _first_attack(run, suite)
    more = [(f"{first} alone, ε = {eps}", eps) for eps in grid if first]
    rows = []
    for model, regime in run.models():
        record = records.get((model, regime))
        if record is None:
            rows.append([model, TRAINING[regime], "missing", *[NONE] * (len(grid) + len(more)), NONE])
            continue
        cells = [robust_accuracy(record, eps) for eps in grid]
        cells += [_under_first_attack(record, eps) for _, eps in more]
        verdict = run.verdict_of(model, regime, suite)
        rows.append([model, TRAINING[regime], number(record["clean_accuracy"]), *cells, verdict])
    rows.append(constant_row(run, [NONE], [*[ACCURACY] * (len(grid) + len(more) + 1), NONE]))
    columns = ["model", "training", "clean", *(f"ε = {eps}" for eps in grid)]
    columns += [*(column for column, _ in more), "checklist"]
    note = table_note("attack_suite", confidence=confidence)
    return Table(f"Attack suite: {suite}", columns, rows, note).with_warning()


def robust_accuracy(record: dict[str, Any] | None, eps: str) -> str:
    """Robust accuracy of an evaluation at one radius, with its interval; `missing` without a record."""
    return "missing" if record is None else with_interval_at(record, "robust_accuracy", eps)


def _first_attack(run: Run, suite: str) -> str | None:
    """The one-step attack with which a suite begins and whose results alone are known; None = there is none."""
    records, _ = run.attacks.of_suite(suite)
    return next((record["first_attack"] for record in records.values() if "first_attack" in record), None)


def _under_first_attack(record: dict[str, Any], eps: str) -> str:
    return with_interval_at(record, "first_attack_accuracy", eps) if "first_attack" in record else NONE


def backbone_table(run: Run, model: str, confidence: float) -> Table:
    """All numbers of one backbone: per training, one row for clean images and one per suite and radius."""
    kappa, classes = _kappa(run), run.classes()
    names = ["accuracy", "balanced_accuracy", "macro_f1", *kappa, *(f"recall_{name}" for name in classes)]
    rows = []
    for regime in REGIMES if model != "ensemble" else (run.ensemble.regime,):
        record = run.clean_record(model, regime)
        measures = [with_interval(record, name) for name in (*names, "auroc", *LINE, "nll")]
        measures.insert(-1, calibration_error(record))
        rows.append([TRAINING[regime], "clean", NONE, *_sample(record), *measures])
        for suite in run.suites:
            rows += [[TRAINING[regime], suite, *cells] for cells in _attacked(run, (model, regime, suite), names)]
        rows += [[TRAINING[regime], *cells] for cells in _all_steps(run, (model, regime), names)]
    measures = [ACCURACY, BALANCED, *[NONE] * (len(names) - 2), AUROC, *[NONE] * (len(LINE) + 2)]
    rows.append(constant_row(run, [NONE] * 4, measures))
    columns = ["training", "images", "ε", "n", "patients", "accuracy", "balanced accuracy", "macro F1"]
    columns += [*kappa.values(), *(f"recall {name}" for name in classes), "AUROC"]
    columns += [*LINE.values(), CALIBRATION_ERROR, "log-loss"]
    note = table_note("backbone", confidence=confidence, all_steps=run.ensemble.matrices)
    return Table(f"{model}: all results", columns, rows, note, folded=True).with_warning()


def _attacked(run: Run, key: Evaluation, names: list[str]) -> list[list[str]]:
    """Rows of one evaluation from the column ε on, one per radius."""
    record, curve = run.attacks.records.get(key), run.attacks.curves.get(key)
    if record is None or curve is None:
        return [[NONE, "missing", *[NONE] * (len(names) + len(LINE) + 4)]]
    return [
        [
            f"{point['eps']:g}",
            *_sample(record),
            *(curve_value(point, name) for name in names),
            *[NONE] * (len(LINE) + 3),
        ]
        for point in curve.to_dict("records")
    ]


def curve_value(point: dict[Any, Any], name: str) -> str:
    """A measure of an attack's curve at one radius, with its interval."""
    return ranged(*(point.get(column) for column in curve_columns(name)))


def _all_steps(run: Run, model: Model, names: list[str]) -> list[list[str]]:
    """Rows from the column images on, for images of the transfer matrix that were made on this model itself."""
    sample = _sample(run.ensemble.transfer)
    rows = []
    for (suite, eps), row in run.transferred(name_of(*model), *model).items():
        accuracy = ranged(row["accuracy"], row["low"], row["high"])
        scores = [NONE, *line_cells(row), calibration_error(row), number(row["log_loss"])]
        rows.append([f"{suite}, all steps", f"{eps:g}", *sample, accuracy, *[NONE] * (len(names) - 1), *scores])
    return rows


def short_table(run: Run) -> Table:
    """The main results: clean accuracy, and robust accuracy near the training radius."""
    radii = {run.nearest_eps(*key) for key in run.attacks.records}
    common = f", ε {next(iter(radii))}" if len(radii) == 1 else ""
    first = {suite: name for suite in run.suites if (name := _first_attack(run, suite))}
    rows = []
    for model, regime in run.models():
        cells = []
        for suite in run.suites:
            key = (model, regime, suite)
            near = run.nearest_eps(*key)
            value = robust_accuracy(run.attacks.records[key], near) if near else "missing"
            cells.append(value if common or not near else f"{value} (ε {near})")
            if suite in first:
                cells.append(_under_first_attack(run.attacks.records[key], near) if near else "missing")
        record = run.clean_record(model, regime)
        clean = [with_interval(record, name) for name in ("balanced_accuracy", "accuracy")]
        rows.append([model, TRAINING[regime], *clean, *cells])
    columns = ["model", "training", "clean balanced accuracy", "clean accuracy"]
    for suite in run.suites:
        columns += [f"{suite}{common}", *([f"{first[suite]} alone"] if suite in first else [])]
    if rows:
        rows.append(constant_row(run, [NONE], [BALANCED, *[ACCURACY] * (len(columns) - 3)]))
    note = "Columns of attack suites: robust accuracy at the radius that is nearest to the training radius."
    return Table("Results", columns, rows, note)


def plain(table: Table) -> str:
    """The table in aligned columns for a terminal."""
    grid = [[one_line(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in grid)


def _sample(record: dict[str, Any]) -> list[str]:
    return [str(record.get(name, NONE)) for name in ("n", "patients")]


def _kappa(run: Run) -> dict[str, str]:
    """Name and column of weighted kappa; {} unless the classes are grades and more than two."""
    graded = run.header.get("ordered") and len(run.classes()) > 2
    return {"quadratic_kappa": "kappa²"} if graded else {}
