"""Tables with the patient as unit: one decision from all images of a patient, clean and attacked."""

from typing import Any

from medrobust.report.run import REGIMES, Model, Run
from medrobust.report.tables.accuracy import TRAINING, robust_accuracy
from medrobust.report.tables.constant import ACCURACY, AUROC, BALANCED, constant_row
from medrobust.report.tables.table import NONE, Table, number, with_interval, with_interval_at
from medrobust.report.templates import table_note


def no_patient_unit(run: Run) -> str | None:
    """Why the data have no patient unit; None if they have one, or if the stage did not run."""
    reasons = {record["not_fitted"] for record in run.patients.records.values() if "not_fitted" in record}
    return next(iter(sorted(reasons)), None)


def single_image_suites(run: Run) -> list[str]:
    """A sentence for each suite that cannot attack all images of a patient together."""
    found = {
        suite: run.patients.attacks.get((*model, suite), {}).get("not_fitted")
        for model in _with_unit(run)
        for suite in run.suites
    }
    return [f"Suite {suite} does not attack patients: {reason}." for suite, reason in found.items() if reason]


def patient_short_table(run: Run, confidence: float) -> Table:
    """The main results per patient: clean, and under each suite near the training radius."""
    rows, aucs = [], len(run.classes()) == 2
    for model, record in _with_unit(run).items():
        cells = [with_interval(record, "balanced_accuracy"), with_interval(record, "auroc")]
        for suite in run.patients.suites:
            attacked, near = run.patients.attacks.get((*model, suite), {}), run.nearest_patient_eps(*model, suite)
            cells.append(_at(attacked, near, "robust_balanced_accuracy"))
            cells += [_at(attacked, near, "robust_auroc")] if aucs else []
        rows.append([model[0], TRAINING[model[1]], *cells])
    columns = ["model", "training", "balanced accuracy", "AUROC"]
    for suite in run.patients.suites:
        columns += [f"{suite}: balanced accuracy", *([f"{suite}: AUROC"] if aucs else [])]
    if rows:
        measures = [AUROC if column.endswith(AUROC) else BALANCED for column in columns[2:]]
        rows.append(constant_row(run, [NONE], measures, patients=True))
    note = table_note(
        "patient_short", confidence=confidence, images=_images(run), aggregate=_aggregate(run),
        patients=run.test_patients(), aucs=aucs,
    )  # fmt: skip
    return Table("Results by patient", columns, rows, note).with_warning()


def patient_attack_tables(run: Run, confidence: float) -> list[Table]:
    """Robust accuracy per patient, one table per suite, one column per radius."""
    tables = []
    for suite in run.patients.suites:
        records = {model: run.patients.attacks.get((*model, suite), {}) for model in _with_unit(run)}
        grid = sorted({eps for record in records.values() for eps in record.get("robust_accuracy", {})}, key=float)
        if not grid:
            continue
        rows = [
            [model, TRAINING[regime], number(record.get("clean_accuracy")),
             *(robust_accuracy(record or None, eps) for eps in grid)]
            for (model, regime), record in records.items()
        ]  # fmt: skip
        rows.append(constant_row(run, [NONE], [ACCURACY] * (len(grid) + 1), patients=True))
        columns = ["model", "training", "clean", *(f"ε = {eps}" for eps in grid)]
        note = table_note("patient_attack", confidence=confidence)
        table = Table(f"Patients under attack: {suite}", columns, rows, note)
        tables.append(table.with_warning())
    return tables


def few_images_table(run: Run, confidence: float) -> Table:
    """Accuracy against an attacker who may change only k images of each patient."""
    records = {model: record for model, record in _with_unit(run).items() if record.get("images_attacked")}
    counts = sorted({k for record in records.values() for k in record["images_attacked"]}, key=int)
    rows = []
    for (model, regime), record in records.items():
        cells = [with_interval_at(record, "images_attacked", k) for k in counts]
        rows.append([model, TRAINING[regime], number(record.get("accuracy")), *cells])
    if rows:
        rows.append(constant_row(run, [NONE], [ACCURACY] * (len(counts) + 1), patients=True))
    columns = ["model", "training", "none changed", *(f"{k} changed" for k in counts)]
    eps = next((record["images_attacked_eps"] for record in records.values()), None)
    note = table_note("few_images", confidence=confidence, eps=eps)
    return Table("Patients, if some images are attacked", columns, rows, note)


def _with_unit(run: Run) -> dict[Model, dict[str, Any]]:
    """The records of models of patients, clean training first for each backbone."""
    models = [(backbone, regime) for backbone in run.backbones for regime in REGIMES]
    records = {model: run.patients.records.get(model, {}) for model in models}
    return {model: record for model, record in records.items() if record and "not_fitted" not in record}


def _at(record: dict[str, Any], eps: str | None, measure: str) -> str:
    """A measure of an attack at a radius, with its interval; a dash if the suite does not attack patients."""
    if "not_fitted" in record:
        return NONE
    if eps is None or not record:
        return "missing"
    return with_interval_at(record, measure, eps)


def _images(run: Run) -> list[int]:
    """Smallest and largest number of images per test patient."""
    counts = [n for record in _with_unit(run).values() for n in record["images_per_patient"]]
    return [min(counts), max(counts)] if counts else []


def _aggregate(run: Run) -> str:
    return next((str(record["aggregate"]) for record in _with_unit(run).values()), "")
