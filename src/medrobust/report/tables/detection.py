"""The report's tables of detection: never the unaware number without the aware one beside it."""

from collections.abc import Iterator
from typing import Any

from medrobust.report.collect import Folders, Reader, Run
from medrobust.report.tables.cells import NONE, Table, number, ranged, with_interval
from medrobust.report.tables.models import TRAINING

#: Keys of a suite's record that are no detector.
FACTS = ("eps",)
#: Tables of points that a cell leaves to draw.
DRAWN = ("curves", "risk", "costs")
#: Rows above which a table opens on demand.
LONG = 24
UNITS = ("image", "patient")
#: Share of clean validation images above the threshold at which evasion is told.
EVASION = "0.05"
WHERE = ["model", "training", "attack", "detector", "attacker", "n"]
Row = tuple[list[str], dict[str, Any]]


def read_detection(run: Run, folders: Folders, cells: list[tuple[str, str]]) -> None:
    """Put what each (model, regime) left into `run.detect` and `run.drawn`, what is missing into `run.missing`."""
    reader = Reader(run)
    for cell in cells:
        name = "-".join(cell)
        path = folders.metrics / "detect" / f"{name}.json"
        if record := reader.metrics(path):
            run.detect[cell] = record
        elif str(path) not in {*run.missing, *run.foreign}:  # empty: the cell is switched off
            continue
        points = {part: reader.table(folders.plots / "detect" / name / f"{part}.csv") for part in DRAWN}
        found = {part: table for part, table in points.items() if table is not None}
        if len(found) == len(DRAWN):
            run.drawn[cell] = found


def detection_tables(run: Run, confidence: float) -> list[Table]:
    """What detectors see, the two tables of the OCT study, and the price; [] if nothing is guarded."""
    if not run.detect:
        return []
    return [_aware(run, confidence), _by_class(run), _published(run), _priced(run)]


def _rows(run: Run) -> Iterator[Row]:
    """(model, training, suite, detector) as text and the detector's record, one a row."""
    for (model, regime), record in run.detect.items():
        for suite, results in record["suites"].items():
            for name, row in results.items():
                if name in FACTS:
                    continue
                seen = {True: " (trained on it)", False: " (trained on another)"}.get(row.get("seen"), "")
                yield [model, TRAINING[regime], f"{suite} ε {results['eps']:g}", name + seen], row


def _both(run: Run) -> Iterator[Row]:
    """The same, one row an attacker: who does not know the detector, on all images and on those of who does."""
    for where, row in _rows(run):
        yield [*where, "unaware", str(row["n_attacked"])], row
        adaptive = row.get("adaptive")
        if adaptive is None:
            yield [*where, "aware", "not attacked"], {}
            continue
        for attacker, part in (("unaware, same images", "unaware"), ("aware", "worst")):
            yield [*where, attacker, str(adaptive[part]["n"])], adaptive[part]


def _aware(run: Run, confidence: float) -> Table:
    rows = []
    for where, row in _rows(run):
        every, hit, adaptive = row, row["successful"], row.get("adaptive", {})
        pair = [adaptive.get(name, {}) for name in ("unaware", "worst")]
        cells = [_counted(with_interval(part, "auroc"), part.get("n_attacked")) for part in (every, hit)]
        cells += [_counted(with_interval(part, "successful_auroc"), part.get("successful")) for part in pair]
        cells += [_evasion(part) for part in pair]
        rows.append([*where, *cells, str(pair[1].get("n", "not attacked"))])
    columns = ["model", "training", "attack", "detector", "AUROC, all", "AUROC, successful"]
    columns += ["AUROC, unaware", "AUROC, aware", "evasion, unaware", "evasion, aware", "images of both"]
    note = (
        "Attacked against clean test images; n counts the attacked ones. All, successful: an attacker who does "
        "not know the detector, on all test images. The columns after these compare the same attacker (unaware) "
        "with one who knows the detector (aware: the least suspicious that any attack reached), both on the "
        "images that the last column counts; their AUROC is that of successful attacks. Evasion: share of the "
        "images that are right without an attack (their number stands behind) which are misread and accepted at "
        "5 % false alarms on clean validation images. An unaware number says nothing of who adapts. "
        f"Brackets are {confidence:.0%} intervals over whole patients."
    )
    return Table("What detectors see", columns, rows, note).warned(confidence)


def _counted(cell: str, count: int | None) -> str:
    return cell if cell == NONE or count is None else f"{cell}, n {count}"


def _evasion(part: dict[str, Any]) -> str:
    """Evasion at the rate of `EVASION`, its interval, and the number of images that could be misread at all."""
    value, interval = (part.get(name, {}).get(EVASION) for name in ("evasion", "evasion_ci"))
    cell = ranged(value, *(interval or (None, None)))
    return f"{cell} of {part['right']}" if value is not None and "right" in part else cell


def _by_class(run: Run) -> Table:
    """Table 1 of the OCT study: AUPRC by class, with the base rate that it leaves out."""
    classes = run.header.get("classes", [])
    rows = []
    for where, row in _both(run):
        parts = [row, *(row.get("per_class", {}).get(name, {}) for name in classes)]
        rows.append([*where, *(_with_base(part) for part in parts)])
    note = "Attacked images are the positive class; in brackets the AUPRC of guessing, which differs by column."
    return Table("AUPRC by class", [*WHERE, "all", *classes], rows, note, len(rows) > LONG)


def _with_base(record: dict[str, Any]) -> str:
    area, base = record.get("auprc_attacked"), record.get("base_rate")
    return NONE if area is None else f"{area:.3f} ({number(base)})"


def _published(run: Run) -> Table:
    """Table 2 of the OCT study: attacked accuracy, misread cases, risk without and with rejection."""
    rows = []
    for where, row in _both(run):
        risk = row.get("published_risk", {})
        shares = [number(risk.get(name)) for name in ("attacked_accuracy", "r_without", "r_with")]
        rows.append([*where, shares[0], str(risk.get("cases", NONE)), *shares[1:]])
    columns = ["accuracy attacked", "cases", "risk without", "risk with"]
    note = (
        "Risk of Li, Pan & Zhu 2020, equation 3: clean errors, clean rejections and accepted attacked errors by "
        "image, from 0 to 2. It has as many attacked images as clean ones and prices every error alike."
    )
    return Table("Published risk", [*WHERE, *columns], rows, note, len(rows) > LONG)


def _paid(risk: dict[str, float]) -> str:
    return f"{risk['cost_without']:.3f} → {risk['cost_with']:.3f} ({risk['clean_rejected']:.0%})"


def _priced(run: Run) -> Table:
    shares = next((list(row["risk"]["patient"]) for _, row in _rows(run)), [])
    none = dict.fromkeys(shares)
    rows = [
        [
            *where,
            unit,
            *(NONE if risk is None else _paid(risk) for risk in row.get("risk", {}).get(unit, none).values()),
        ]
        for where, row in _both(run)
        for unit in UNITS
    ]
    note = (
        "Mean cost, without → with rejection at the threshold that was cheapest on validation patients against "
        "the unaware attacker, by the share of attacked ones; in brackets the clean ones rejected there. Prices: "
        "detect.risk in params.yaml. A detector pays where the second number is the lower; where nearly all are "
        "rejected, the model does not."
    )
    columns = [*WHERE, "unit", *(f"{float(share):g}" for share in shares)]
    return Table("Cost by share of attacked images", columns, rows, note, len(rows) > LONG)
