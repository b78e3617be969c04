"""Tables of corruptions: all of a model in short; balanced accuracy and its drop by corruption and severity."""

from pathlib import Path
from typing import Any

from medrobust.core.params.corruptions import CorruptionsParams
from medrobust.core.params.report import ReportParams
from medrobust.corruptions.summary import Summary, mean_corruption_error
from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, Model, Run, name_of
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import BALANCED, DROP, constant_row
from medrobust.report.tables.table import NONE, Table, number, with_interval, with_interval_at
from medrobust.report.templates import table_note


def read_corruptions(
    run: Run, metrics: Path, tables: Path | None, backbones: list[str], params: CorruptionsParams,
    report: ReportParams,
) -> None:  # fmt: skip
    """Put the record of every evaluated model into `run.corruptions`, and what is missing into `run.missing`.

    The mean corruption error compares the predictions of two models, which are below `tables`; without them it is
    left out.
    """
    found = run.corruptions
    found.suite, found.baseline = params.suite, params.baseline
    read_corruption_records(run, metrics, backbones)
    summaries = _summaries(run, tables, report) if tables else {}
    baseline = next((summary for model, summary in summaries.items() if name_of(*model) == params.baseline), None)
    if baseline:
        for model, summary in summaries.items():
            found.records[model] |= mean_corruption_error(summary, baseline)


def read_corruption_records(run: Run, metrics: Path, backbones: list[str]) -> None:
    """The same without what a comparison of models needs."""
    reader = Reader(run)
    for model in ((backbone, regime) for backbone in backbones for regime in REGIMES):
        path = metrics / "corrupt" / f"{name_of(*model)}.json"
        if record := reader.metrics(path, run.hashes.of(model)):
            run.corruptions.records[model] = record


def _summaries(run: Run, tables: Path, report: ReportParams) -> dict[Model, Summary]:
    reader, found = Reader(run), {}
    for model in run.corruptions.records:
        table = reader.parquet(tables / f"{name_of(*model)}.parquet", run.hashes.of(model))
        if table is not None:
            images = table[table["unit"] == "image"]
            found[model] = Summary(images, run.classes(), resamples=report.bootstrap, confidence=report.confidence)
            first = table[(table["draw"] == 0) & (table["severity"] > 0)]
            run.answers.corrupted[model] = first[first["unit"] == "image"]
            run.answers.patients_corrupted[model] = first[first["unit"] == "patient"]
    return found


def corruptions_text(run: Run) -> list[str]:
    """Which backbones were not evaluated, and why the checklist says nothing; [] without results."""
    if not run.corruptions.records:
        return []
    evaluated = {backbone for backbone, _ in run.corruptions.records}
    left = [name for name in run.backbones if name not in evaluated]
    text = [
        "The checklist does not apply to corruptions. It looks for signs that a search along gradients or scores "
        "failed; a corruption follows neither, so that nothing can mask it."
    ]
    return text + ([f"Not evaluated (models.*.corrupt in params.yaml): {', '.join(left)}."] if left else [])


def corruption_short_table(run: Run, confidence: float) -> Table:
    """One row per model and unit: means over all corruptions and severities, the worst case beside the attack."""
    suite, rows = run.corruptions.suite, []
    for model, record in run.corruptions.records.items():
        key = (*model, suite or "")
        rows.append(_short_row(model, "image", record, run.attacks.records.get(key, {}), run.nearest_eps(*key)))
        if "patient" in record:
            attacked, near = run.patients.attacks.get(key, {}), run.nearest_patient_eps(*key)
            rows.append(_short_row(model, "patient", record["patient"], attacked, near))
    columns = [
        "model",
        "training",
        "unit",
        "n",
        "patients",
        "clean",
        "mean over corruptions",
        "mean relative drop",
    ]
    columns += ["mean corruption error", "worst corruption", f"{suite} (L∞)" if suite else "attack"]
    note = ""
    if rows:
        rows.append(constant_row(run, [NONE] * 4, [BALANCED, BALANCED, DROP, NONE, BALANCED, BALANCED]))
        first = next(iter(run.corruptions.records.values()))
        note = table_note(
            "corruptions_short", confidence=confidence, baseline=run.corruptions.baseline, draws=first["draws"],
            suite=suite, by_patient="patient" in first,
        )  # fmt: skip
    return Table("Corruptions in short", columns, rows, note).with_warning()


def _short_row(model: Model, unit: str, record: Any, attacked: Any, near: str | None) -> list[str]:
    return [
        model[0], TRAINING[model[1]], unit, f"{record['n']}", f"{record['patients']}",
        with_interval(record, "balanced_accuracy"), number(record["mean_balanced_accuracy"]),
        number(record["mean_relative_drop"]), with_interval(record, "mean_corruption_error"),
        with_interval(record["worst"], "balanced_accuracy"),
        with_interval_at(attacked, "robust_balanced_accuracy", near) if near else NONE,
    ]  # fmt: skip


def corruption_tables(run: Run, confidence: float) -> list[Table]:
    """Two tables per model and unit: balanced accuracy by corruption and severity, and the share that is lost."""
    return [table for model in run.corruptions.records for table in corruption_tables_of(run, model, confidence)]


def corruption_tables_of(run: Run, model: Model, confidence: float) -> list[Table]:
    """The tables of one model, images first; [] if it was not evaluated."""
    record = run.corruptions.records.get(model)
    if not record:
        return []
    title = f"{model[0]}, {TRAINING[model[1]]} training"
    units = {title: record, f"{title}, by patient": record.get("patient")}
    return [
        table for name, found in units.items() if found for table in _both_tables(run, found, name, confidence)
    ]


def _both_tables(run: Run, record: Any, title: str, confidence: float) -> list[Table]:
    severities = list(next(iter(record["corruptions"].values()))["severities"])
    columns = ["corruption", *(f"severity {severity}" for severity in severities)]
    accuracy, drop = [], []
    for name, found in record["corruptions"].items():
        parts, words = found["severities"], name.replace("_", " ")
        accuracy.append([
            words, *(with_interval(parts[key], "balanced_accuracy") for key in severities),
            with_interval(found["worst"], "balanced_accuracy"),
        ])  # fmt: skip
        drop.append([words, *(with_interval(parts[key], "relative_drop") for key in severities)])
    accuracy.append(constant_row(run, [], [BALANCED] * len(columns)))
    note = table_note("corruptions", confidence=confidence, clean=with_interval(record, "balanced_accuracy"))
    rates = Table(f"Balanced accuracy under corruptions: {title}", [*columns, "worst"], accuracy, note)
    note = table_note("corruption_drops", confidence=confidence)
    drops = Table(f"Relative drop under corruptions: {title}", columns, drop, note, folded=True)
    return [rates.with_warning(), drops]


def attack_points(run: Run, model: Model) -> list[tuple[float, float]]:
    """The Linf suite on an axis of L2 distance: (ε·√values per image, robust balanced accuracy), radii rising.

    Every image in the Linf ball of radius ε has at most this L2 distance.
    """
    record: dict[str, Any] = run.attacks.records.get((*model, run.corruptions.suite or ""), {})
    values = run.header.get("channels", 0) * run.header.get("image_size", 0) ** 2
    found = record.get("robust_balanced_accuracy", {})
    return [(float(eps) * values**0.5, value) for eps, value in found.items()] if values else []
