"""Effect of attacks on calibration and per-class recall."""

from typing import Any

import pandas as pd

from medrobust.core.reliability import calibration_line
from medrobust.report.run import CLEAN, Run, name_of
from medrobust.report.scores import log_probabilities
from medrobust.report.tables.accuracy import TRAINING, curve_value
from medrobust.report.tables.reliability import CALIBRATION_ERROR, LINE, calibration_error, line_cells
from medrobust.report.tables.table import Table, number, ranged, with_interval
from medrobust.report.templates import table_note


def calibration_table(run: Run, confidence: float) -> Table:
    """Calibration of every model's probabilities before and after an attack."""
    rows, scores = [], run.answers.scores
    for model, regime in run.models():
        name = name_of(model, regime)
        before, after = (run.transferred(source, model, regime) for source in (CLEAN, name))
        for (suite, eps), row in after.items():
            for images, part in (("clean", before[suite, eps]), (f"{suite} ε {eps:g}", row)):
                line = None
                if scores is not None:
                    own = scores[(scores["source"] == part["source"]) & (scores["judge"] == name)]
                    line = _line(own, confidence) if len(own) else None
                loss = ranged(part["log_loss"], part["log_loss_low"], part["log_loss_high"])
                accuracy = ranged(part["accuracy"], part["low"], part["high"])
                cells = [number(part["brier"]), *line_cells(part, line), calibration_error(part)]
                rows.append([model, TRAINING[regime], images, accuracy, loss, *cells])
    transfer = run.ensemble.transfer
    note = table_note("calibration", transfer=transfer, confidence=confidence)
    columns = ["model", "training", "images", "accuracy", "log-loss", "Brier", *LINE.values(), CALIBRATION_ERROR]
    return Table("Calibration before and after attack", columns, rows, note).with_warning()


def _line(table: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Slope and intercept with their intervals, of a table of predictions."""
    labels, patients = table["label"].to_numpy(), table["patient"].to_numpy().astype(str)
    return calibration_line(labels, log_probabilities(table), patients, confidence)


def patient_calibration_table(run: Run, confidence: float) -> Table:
    """The same with the patient as unit."""
    rows = [
        [model, TRAINING[regime], scored.images, str(len(scored.labels)),
         *(with_interval(scored.calibration, name) for name in ("accuracy", *LINE)),
         calibration_error(scored.calibration)]
        for (model, regime), sets in run.scored.items() for scored in sets if scored.unit == "patient"
    ]  # fmt: skip
    columns = ["model", "training", "images", "patients", "accuracy", *LINE.values(), CALIBRATION_ERROR]
    note = table_note("patient_calibration", confidence=confidence)
    return Table("Calibration by patient, clean and attacked", columns, rows, note).with_warning()


def recall_table(run: Run, confidence: float) -> Table:
    """Recall of each class, clean and under every suite at the radius nearest to the training radius."""
    classes = run.classes()
    rows = []
    for model, regime in run.models():
        clean = run.clean_record(model, regime)
        rows.append(
            [model, TRAINING[regime], "clean", *(with_interval(clean, f"recall_{name}") for name in classes)]
        )
        for suite in run.suites:
            near, curve = run.nearest_eps(model, regime, suite), run.attacks.curves.get((model, regime, suite))
            if near is None or curve is None:
                continue
            point = min(curve.to_dict("records"), key=lambda row: abs(row["eps"] - float(near)))
            recalls = (curve_value(point, f"recall_{name}") for name in classes)
            rows.append([model, TRAINING[regime], f"{suite} ε {near}", *recalls])
    note = table_note("recall", confidence=confidence)
    counts = [run.test_patients(name) for name in classes]
    heads = [f"{name} ({count} patients)" if count else name for name, count in zip(classes, counts, strict=True)]
    return Table("Recall by class, clean and attacked", ["model", "training", "images", *heads], rows, note)
