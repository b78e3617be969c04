"""Text and tables of the ensemble: its members, how it was fitted, and a comparison of all methods."""

from medrobust.report.run import SEPARATE, Run, name_of
from medrobust.report.tables.reliability import CALIBRATION_ERROR, calibration_error
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval
from medrobust.report.templates import paragraphs, table_note


def ensemble_text(run: Run) -> list[str]:
    """The selected method, how it was fitted, which members it runs, and how one image for all members matters."""
    record, model = run.ensemble.record, run.ensemble.model
    if "method" not in record:
        return []
    weights = record.get("weights", {})
    separate = run.transferred(SEPARATE, *model)
    attacks = [
        (cell, *(ranged(part["accuracy"], part["low"], part["high"]) for part in (row, separate[cell])))
        for cell, row in run.transferred(name_of(*model), *model).items()
        if cell in separate
    ]
    return paragraphs(
        "medrobust.report.tables", "ensemble.txt.jinja", record=record, attacks=attacks,
        used=[name for name, weight in weights.items() if weight > 0],
        unused=[name for name, weight in weights.items() if weight == 0], images=run.ensemble.transfer.get("n"),
    )  # fmt: skip


def weights_table(run: Run) -> Table:
    """Each member's weight (a regression has none) and temperature."""
    record = run.ensemble.record
    weights, temperatures = record.get("weights", {}), record.get("temperatures", {})
    rows = []
    for name in record.get("members", weights):
        cells = [number(weights[name]) if weights else "by regression"]
        rows.append([name, *cells, *([number(temperatures[name])] if temperatures else [])])
    columns = ["member", "weight", *(["temperature"] if temperatures else [])]
    return Table("Members", columns, rows, "Fitted on validation images, clean and attacked.")


def methods_table(run: Run, confidence: float) -> Table:
    """Every method on validation patients that it was not fitted on, and on clean test images."""
    rows = []
    for name, record in run.ensemble.methods.items():
        label = f"{name} (selected)" if name == run.ensemble.record.get("method") else name
        if "not_fitted" in record:
            rows.append([label, *[NONE] * 6, f"not fitted: {record['not_fitted']}"])
            continue
        cells = [number(record.get(f"val_{key}")) for key in ("log_loss", "robust_log_loss", "balanced_accuracy")]
        cells += [with_interval(record, "test_balanced_accuracy"), with_interval(record, "test_accuracy")]
        rows.append([label, *cells, number(record.get("test_log_loss")), calibration_error(record, "test_")])
    columns = ["method", "validation log-loss", "validation log-loss, attacked", "validation balanced accuracy"]
    columns += ["test balanced accuracy", "test accuracy", "test log-loss", f"test {CALIBRATION_ERROR}"]
    note = table_note("methods", confidence=confidence, methods=run.ensemble.methods)
    return Table("Ensemble methods", columns, rows, note).with_warning()
