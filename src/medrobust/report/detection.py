"""The report's tables of detection: never the unaware number without the aware one beside it."""

from pathlib import Path
from typing import Any

from medrobust.report.collect import Reader, Run
from medrobust.report.tables import NONE, TRAINING, Table, number, with_interval

#: Keys of a suite's record that are no detector.
FACTS = ("eps",)


def read_detection(run: Run, metrics: Path, cells: list[tuple[str, str]]) -> None:
    """Put the record of every (model, regime) into `run.detect`, and what is missing into `run.missing`."""
    reader = Reader(run)
    for cell in cells:
        if record := reader.record(metrics / "detect" / f"{'-'.join(cell)}.json"):
            run.detect[cell] = record


def detection_tables(run: Run, confidence: float) -> list[Table]:
    """What detectors see, the two tables of the OCT study, and the price; [] if nothing is guarded."""
    if not run.detect:
        return []
    return [_aware(run, confidence), _by_class(run), _published(run), _priced(run)]


def _rows(run: Run) -> list[tuple[list[str], dict[str, Any], dict[str, Any]]]:
    """(model, training, suite, detector) as text, the suite's record and the detector's, one a row."""
    found = []
    for (backbone, regime), record in run.detect.items():
        for suite, results in record["suites"].items():
            for name, row in results.items():
                if name in FACTS:
                    continue
                seen = {True: " (trained on it)", False: " (trained on another)"}.get(row.get("seen"), "")
                where = [backbone, TRAINING[regime], f"{suite} ε {results['eps']:g}", name + seen]
                found.append((where, results, row))
    return found


def _aware(run: Run, confidence: float) -> Table:
    rows = []
    for where, _, row in _rows(run):
        cells = [with_interval(row, "auroc"), with_interval(row["successful"], "auroc")]
        adaptive = row.get("adaptive", {})
        worst, unaware = adaptive.get("worst", {}), adaptive.get("unaware", {})
        cells += [with_interval(worst, "successful_auroc") if worst else "not attacked"]
        cells += [number(part.get("evasion", {}).get("0.05")) for part in (unaware, worst)]
        rows.append([*where, *cells, str(worst.get("n", NONE))])
    columns = ["model", "training", "attack", "detector", "AUROC, all", "AUROC, successful", "AUROC, aware"]
    note = (
        "Attacked against clean test images. Aware: the least suspicious of what attackers who know the detector "
        "and one who does not reach on the last column's images, successful attacks. Evasion: share of initially "
        "right images that are misread and accepted at 5 % false alarms on clean validation images. An unaware "
        "number says nothing about an attacker who adapts. Brackets are "
        f"{confidence:.0%} intervals over whole patients."
    )
    return Table("What detectors see", [*columns, "evasion, unaware", "evasion, aware", "n"], rows, note)


def _by_class(run: Run) -> Table:
    classes = run.header.get("classes", [])
    rows = []
    for where, _, row in _rows(run):
        parts = [row, *(row["per_class"].get(name, {}) for name in classes)]
        rows.append([*where, *(_with_base(part) for part in parts)])
    note = "Attacked images are the positive class; in brackets the AUPRC of guessing, which differs by column."
    return Table("AUPRC by class", ["model", "training", "attack", "detector", "all", *classes], rows, note)


def _with_base(record: dict[str, Any]) -> str:
    area, base = record.get("auprc_attacked"), record.get("base_rate")
    return NONE if area is None else f"{area:.3f} ({number(base)})"


def _published(run: Run) -> Table:
    names = ("attacked_accuracy", "cases", "r_without", "r_with")
    rows = []
    for where, _, row in _rows(run):
        risk = row["published_risk"]
        rows.append(
            [*where, number(risk[names[0]]), str(risk[names[1]]), *(number(risk[name]) for name in names[2:])]
        )
    columns = ["accuracy attacked", "cases", "risk without", "risk with"]
    note = (
        "Risk of Li, Pan & Zhu 2020, equation 3: clean errors, clean rejections and accepted attacked errors by "
        "image, from 0 to 2. It has as many attacked images as clean ones and prices every error alike."
    )
    return Table("Published risk", ["model", "training", "attack", "detector", *columns], rows, note)


def _paid(risk: dict[str, float]) -> str:
    return f"{risk['cost_without']:.3f} → {risk['cost_with']:.3f} ({risk['clean_rejected']:.0%})"


def _priced(run: Run) -> Table:
    shares = next((list(row["risk"]["patient"]) for _, _, row in _rows(run)), [])
    rows = [
        [
            *where,
            unit,
            *(_paid(risk) for risk in shares_of.values()),
        ]
        for where, _, row in _rows(run)
        for unit, shares_of in row["risk"].items()
    ]
    note = (
        "Mean cost, without → with rejection at the threshold that was cheapest on validation patients, by the "
        "share of attacked ones; in brackets the clean ones rejected there. Prices: detect.risk in params.yaml. "
        "A detector pays where the second number is the lower; where nearly all are rejected, the model does not."
    )
    columns = ["model", "training", "attack", "detector", "unit", *(f"{float(share):g}" for share in shares)]
    return Table("Cost by share of attacked images", columns, rows, note)
