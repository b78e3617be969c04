"""Tables of detection: every result of an unaware attacker is next to that of an aware attacker.

An aware attacker knows the detector and tries to evade it; an unaware attacker attacks only the model.
"""

from collections.abc import Iterator
from typing import Any

from medrobust.report.collect import Folders, Reader
from medrobust.report.run import Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval, with_interval_at
from medrobust.report.templates import paragraphs, table_note

#: Keys of a suite's record that are no detectors.
FACTS = ("eps",)
#: By whether a detector was trained on the suite (`seen` of its record, if it was trained on attacks).
SEEN = {True: " (trained on this suite)", False: " (trained on another suite)"}
#: Tables from which the charts are drawn.
DRAWN = ("curves", "risk", "costs")
#: A table with more rows opens on demand.
LONG = 24
UNITS = ("image", "patient")
#: Share of clean validation images above the threshold at which the table gives the evasion.
EVASION = "0.05"
WHERE = ["model", "training", "attack", "detector", "attacker", "n"]
Row = tuple[list[str], dict[str, Any]]


def read_detection(run: Run, folders: Folders, cells: list[tuple[str, str]]) -> None:
    """Put what each (model, regime) left into `run.detect` and `run.drawn`, what is missing into `run.missing`."""
    reader = Reader(run)
    for cell in cells:
        name = "-".join(cell)
        path = folders.metrics / "detect" / f"{name}.json"
        if record := reader.metrics(path, run.hashes.of_all_suites(cell)):
            run.detect[cell] = record
        elif str(path) not in {*run.missing, *run.foreign}:  # empty: the cell is switched off
            continue
        points = {part: reader.table(folders.plots / "detect" / name / f"{part}.csv", record) for part in DRAWN}
        found = {part: table for part, table in points.items() if table is not None}
        if len(found) == len(DRAWN):
            run.drawn[cell] = found


def detection_text(run: Run) -> list[str]:
    """What a detector does, and who the two attackers are; [] if no model is guarded."""
    return paragraphs("medrobust.report.tables", "detection.txt.jinja") if run.detect else []


def detection_tables(run: Run, confidence: float) -> list[Table]:
    """Detection rates, the two tables of the OCT study, and the costs; [] if no model is guarded."""
    if not run.detect:
        return []
    return [_rates(run, confidence), _by_class(run), _published(run), _costs(run)]


def _rows(run: Run) -> Iterator[Row]:
    """[model, training, attack, detector] as text with the detector's record, one per row of a table."""
    for (model, regime), record in run.detect.items():
        for suite, results in record["suites"].items():
            for name, row in results.items():
                if name in FACTS:
                    continue
                trained = SEEN.get(row.get("seen"), "")
                where = [model, TRAINING[regime], f"{suite} ε {results['eps']:g}", name + trained]
                yield where, {**row, "fpr": record["fpr"]}


def _per_attacker(run: Run) -> Iterator[Row]:
    """The same per attacker: unaware on all images, unaware on the images of the aware attacker, and aware."""
    for where, row in _rows(run):
        yield [*where, "unaware", str(row["n_attacked"])], row
        adaptive = row.get("adaptive")
        if adaptive is None:
            yield [*where, "aware", "not attacked"], {}
            continue
        threshold = {name: row.get(name) for name in ("fpr", "test_fpr", "test_fpr_ci")}
        for attacker, part in (("unaware, same images", "unaware"), ("aware", "worst")):
            yield [*where, attacker, str(adaptive[part]["n"])], {**adaptive[part], **threshold}


def _rates(run: Run, confidence: float) -> Table:
    rows = []
    for where, row in _rows(run):
        pair = [row.get("adaptive", {}).get(name, {}) for name in ("unaware", "worst")]
        cells = [_counted(part, "auroc", "n_attacked") for part in (row, row["successful"])]
        cells += [_counted(part, "successful_auroc", "successful") for part in pair]
        alarms = row.get("false_alarms", {}).get(EVASION, {})
        cells += [*map(_evasion, pair), ranged(alarms.get("rate"), *(alarms.get("ci") or (None, None)))]
        rows.append([*where, *cells, str(pair[1].get("n", "not attacked"))])
    columns = ["model", "training", "attack", "detector", "AUROC, all", "AUROC, successful"]
    columns += ["AUROC, unaware", "AUROC, aware", "evasion, unaware", "evasion, aware"]
    columns += [f"false alarms (nominal {float(EVASION):.0%})", "compared images"]
    note = table_note("detection", confidence=confidence)
    return Table("Detection of attacked images", columns, rows, note).with_warning()


def _counted(part: dict[str, Any], name: str, count: str) -> str:
    """A value with its interval and the number of images behind it."""
    cell = with_interval(part, name)
    return cell if cell == NONE or part.get(count) is None else f"{cell}, n {part[count]}"


def _evasion(part: dict[str, Any]) -> str:
    """Evasion at the rate of `EVASION`, its interval, and the number of images that are right when clean."""
    cell = with_interval_at(part, "evasion", EVASION)
    return cell if cell == NONE or "right" not in part else f"{cell} of {part['right']}"


def _by_class(run: Run) -> Table:
    """Table 1 of the OCT study: AUPRC by class, with the base rate, which the study does not give."""
    classes = run.header.get("classes", [])
    rows = []
    for where, row in _per_attacker(run):
        whole = _successful(row)
        parts = [whole, *(row.get("per_class", {}).get(name, {}) for name in classes)]
        rows.append([*where[:-1], whole.get("n_attacked", where[-1]), *(_with_base(part) for part in parts)])
    columns = [*WHERE[:-1], "successful attacks", "all", *classes]
    return Table("AUPRC by class", columns, rows, table_note("detection_by_class"), len(rows) > LONG)


def _successful(row: dict[str, Any]) -> dict[str, Any]:
    """`n_attacked` as text, `auprc_attacked` and `base_rate` of successful attacks; {} if there was no attacker.

    The record of all images has them under `successful`, that of the compared images beside the other measures.
    """
    found = row.get("successful")
    if isinstance(found, dict):
        return {**found, "n_attacked": str(found["n_attacked"])}
    if found is None:
        return {}
    named = {name: row.get(f"successful_{name}") for name in ("auprc_attacked", "base_rate")}
    return {"n_attacked": str(found), **named}


def _with_base(record: dict[str, Any]) -> str:
    area, base = record.get("auprc_attacked"), record.get("base_rate")
    return NONE if area is None else f"{area:.3f} ({number(base)})"


def _published(run: Run) -> Table:
    """Table 2 of the OCT study: accuracy under attack, errors, risk without and with rejection."""
    rows = []
    for where, row in _per_attacker(run):
        risk = row.get("published_risk", {})
        shares = [number(risk.get(name)) for name in ("attacked_accuracy", "r_without", "r_with")]
        nominal = f" (nominal {row['fpr']:.0%})" if risk else ""
        alarms = with_interval(row, "test_fpr") + nominal
        rows.append([*where, shares[0], str(risk.get("cases", NONE)), *shares[1:], alarms])
    columns = ["accuracy attacked", "errors attacked", "risk without detector", "risk with detector"]
    columns += ["false alarms"]
    return Table("Risk as published", [*WHERE, *columns], rows, table_note("published_risk"), len(rows) > LONG)


def _costs(run: Run) -> Table:
    shares = next((list(row["risk"]["patient"]) for _, row in _rows(run)), [])
    rows = []
    for where, row in _per_attacker(run):
        for unit in UNITS:
            cells = [
                f"{risk['cost_without']:.3f} → {risk['cost_with']:.3f} ({risk['clean_rejected']:.0%})"
                for risk in row.get("risk", {}).get(unit, {}).values()
            ]
            rows.append([*where, unit, *(cells or [NONE] * len(shares))])
    note = table_note("detection_costs")
    columns = [*WHERE, "unit", *(f"{float(share):g}" for share in shares)]
    return Table("Cost by share of attacked images", columns, rows, note, len(rows) > LONG)
