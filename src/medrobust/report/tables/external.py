"""Tables of external data: each model's results on its own test images and on the external ones, side by side."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medrobust.core.lineage import MADE_ON
from medrobust.core.records import read_metrics
from medrobust.report.collect import Reader
from medrobust.report.run import REGIMES, External, Model, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.constant import AUROC, BALANCED, CONSTANT, DROP, constant_row
from medrobust.report.tables.groups import Rate, difference
from medrobust.report.tables.table import NONE, Table, number, ranged
from medrobust.report.templates import table_note

#: In place of the audit's verdict, for a result that was made without the pipeline.
NOT_AUDITED = "evaluated without the pipeline, so that no audit compared its images with those of training"
#: A measure, and its results on the own test images and on the external ones; None: unknown.
Pairs = Iterator[tuple[str, Rate | None, Rate | None]]


def read_external(run: Run, metrics: Path, *, complete: bool = True) -> None:
    """Put the records of all external sets into `run.external`.

    `complete` says whether `run` has all models. If so, a result of any other model is noted as one of another
    run. If not, such a result may be of a model that was left out, and is ignored.
    """
    reader, folder = Reader(run), metrics / "external"
    if not reader.usable(folder / "sets.json"):
        return
    known = read_metrics(folder / "sets.json")
    for name in known["sets"]:
        found = run.external.setdefault(name, External())
        found.audit.update(reader.metrics(folder / f"{name}-audit.json", run.hashes.of()))
        images = {"external": found.audit.get(MADE_ON, {}).get("external")}
        for model in ((backbone, regime) for backbone in run.backbones for regime in REGIMES):
            path = folder / f"{name}-{'-'.join(model)}.json"
            if record := reader.metrics(path, {**run.hashes.of_all_suites(model), **images}):
                found.records[model] = record
    models = {weights: model for model, weights in run.hashes.models.items()}
    for number_of_file in range(known["evaluated"]):
        path = folder / f"evaluated{number_of_file}.json"
        record = read_metrics(path) if reader.usable(path) else {}
        weights = record.get(MADE_ON, {}).get("weights", "")
        expected = {"weights": weights if weights in models else "", "suites": run.hashes.suites}
        if record and (complete or weights in models) and reader.belongs(path, record[MADE_ON], expected):
            run.external.setdefault(record["set"], External()).records[models[weights]] = record


def external_text(run: Run) -> list[str]:
    """One paragraph per external set: its size, what was left out, and what does not compare."""
    found = []
    for name, external in run.external.items():
        record: dict[str, Any] = next(iter(external.records.values()), {})
        if not record:
            continue
        left_out = sum(record.get("left_out", {}).values())
        parts = [f"{name}: {record['n']} images of {record['patients']} patients"]
        parts += [f"{left_out} images left out by their label"] if left_out else []
        lacking = _lacking(record)
        parts += [f"no image of {', '.join(lacking)}, so that no difference is shown"] if lacking else []
        parts.append(f"audit: {external.audit['verdict']}" if external.audit else NOT_AUDITED)
        found.append(f"{'; '.join(parts)}.")
    return found


def external_tables(run: Run, confidence: float) -> list[Table]:
    """Two tables per external set: the models' results side by side, and the classes of both data sets."""
    tables = []
    for name, external in run.external.items():
        rows = [row for model, record in external.records.items() for row in _rows(run, model, record)]
        rows += _constant_rows(run, external)
        columns = ["model", "training", "measure", "own test images", "external", "external − own"]
        note = table_note("external", confidence=confidence)
        tables.append(Table(f"External data: {name}", columns, rows, note).with_warning())
        tables.append(_classes_table(run, name, external))
    return tables


def _constant_rows(run: Run, external: External) -> list[list[str]]:
    """The constant answer on both data sets; without some classes no difference is shown, as in other rows."""
    lacking = _lacking(next(iter(external.records.values()), {"counts": {}}))
    if not lacking:
        return [constant_row(run, [NONE, name], [name, name, DROP]) for name in (BALANCED, AUROC)]
    (own,) = constant_row(run, [], [BALANCED])[1:]
    return [[CONSTANT, NONE, BALANCED, own, number(1 / max(len(run.classes()) - len(lacking), 1)), NONE]]


def _rows(run: Run, model: Model, record: dict[str, Any]) -> Iterator[list[str]]:
    comparable = not _lacking(record)
    for measure, own, other in [*_image_measures(run, model, record), *_patient_measures(run, model, record)]:
        gap = difference(other, own) if own and other and comparable else None
        cells = [NONE if rate is None else ranged(*rate) for rate in (own, other, gap)]
        yield [model[0], TRAINING[model[1]], measure, *cells]


def _image_measures(run: Run, model: Model, record: dict[str, Any]) -> Pairs:
    clean = record["clean"]
    yield (
        "balanced accuracy",
        _rate(run.clean_record(*model), "balanced_accuracy"),
        _rate(clean, "balanced_accuracy"),
    )
    scored = next((found for found in run.scored.get(model, []) if found.images == "clean"), None)
    own = {"auroc": scored.auroc, "auroc_ci": scored.auroc_ci} if scored else {}
    yield "AUROC", _rate(own, "auroc"), _rate(clean, "auroc")
    for suite, radii in record["attacks"].items():
        attacked = run.attacks.records.get((*model, suite), {})
        for eps, found in radii.items():
            yield (
                f"balanced accuracy, {suite} ε {eps}",
                _rate_at(attacked, eps),
                _rate(found, "robust_balanced_accuracy"),
            )
    suites: dict[str, Any] = run.detect.get(model, {}).get("suites", {})
    own_alarms: dict[str, Any] = next(iter(suites.values()), {})
    for name, found in record["detectors"].items():
        own_rate = _rate(own_alarms.get(name, {}), "test_fpr")
        yield f"clean images that {name} rejects", own_rate, _rate(found, "false_alarms")
        for suite, share in found.get("rejected_attacked", {}).items():
            yield f"images attacked by {suite} that {name} rejects", None, Rate(share, float("nan"), float("nan"))


def _patient_measures(run: Run, model: Model, record: dict[str, Any]) -> Pairs:
    found = record.get("patients_record", {})
    if "clean" not in found:
        return
    own = run.patients.records.get(model, {})
    for name, words in (("balanced_accuracy", "balanced accuracy"), ("auroc", "AUROC")):
        yield f"{words}, by patient", _rate(own, name), _rate(found["clean"], name)
    for suite, radii in found["attacks"].items():
        attacked = run.patients.attacks.get((*model, suite), {})
        for eps, rates in radii.items():
            words = f"balanced accuracy, {suite} ε {eps}, by patient"
            yield words, _rate_at(attacked, eps), _rate(rates, "robust_balanced_accuracy")


def _rate(record: dict[str, Any], name: str) -> Rate | None:
    value, interval = record.get(name), record.get(f"{name}_ci")
    return Rate(value, *interval) if value is not None and interval else None


def _rate_at(record: dict[str, Any], eps: str) -> Rate | None:
    name = "robust_balanced_accuracy"
    parts = {key: record.get(key, {}).get(eps) for key in (name, f"{name}_ci")}
    return _rate(parts, name)


def _lacking(record: dict[str, Any]) -> list[str]:
    """The classes of the model that the external images do not have."""
    return [name for name, count in record["counts"].items() if not count["images"]]


def _classes_table(run: Run, name: str, external: External) -> Table:
    """Images, patients and share of images of each class, in the own test images and in the external ones."""
    record: dict[str, Any] = next(iter(external.records.values()), {})
    counts, test = record.get("counts", {}), run.split.get("test", {})
    own, other = sum(test.get(label) or 0 for label in counts), sum(count["images"] for count in counts.values())
    rows = []
    for label, count in counts.items():
        images, patients = test.get(label), test.get("patients_by_class", {}).get(label)
        cells = [
            NONE if images is None else str(images), NONE if patients is None else str(patients),
            number(images / own if images is not None and own else None), str(count["images"]),
            str(count["patients"]), number(count["images"] / other),
        ]  # fmt: skip
        rows.append([label, *cells])
    columns = [
        "class",
        *(f"{side} {what}" for side in ("own", "external") for what in ("images", "patients", "share")),
    ]
    return Table(f"Classes: own test images and {name}", columns, rows)
