"""The vote: who votes and how that came to be, the ways to vote side by side, and whose images fool whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medrobust.report.collect import CLEAN, SEPARATE, Folders, Reader, Run, name_of
from medrobust.report.tables.cells import NONE, Table, number, ranged, with_interval
from medrobust.report.tables.votes import attacks_table, read_votes

#: What each method does, for a reader who has not met it.
WORDS = {
    "equal": "every member has the same weight; nothing was fitted",
    "convex": "the mean of the members' probabilities, with the weights of the smallest log-loss",
    "stacking": "logistic regression on the members' log-probabilities, its penalty chosen out of fold by patient",
    "blending": "logistic regression on the members' log-probabilities, its penalty chosen on held-out patients",
}


@dataclass(frozen=True)
class Grid:
    """A table of shares that are shaded; `told` is shown under the pointer."""

    title: str
    corner: str
    rows: list[str]
    columns: list[str]
    rates: list[list[float]]
    told: list[list[str]]
    note: str = ""


def read_ensemble(run: Run, folders: Folders, attacked: Sequence[str], predictions: Path) -> None:
    """Read the vote's answers, the comparison of methods, attacks, transfer; what is missing is noted in the run.

    Args:
        run: read into it.
        folders: where the stages wrote.
        attacked: ways to vote beside the one in force that suites attack.
        predictions: the vote's answers to test images.
    """
    reader = Reader(run)
    read_votes(run, reader, folders, attacked)
    run.methods.update(run.ensemble.get("methods", {}))
    answers = reader.table(predictions)
    if answers is not None:
        names = dict(enumerate(run.classes()))
        named = pd.DataFrame({"actual": answers["label"].map(names), "predicted": answers["pred"].map(names)})
        if not named.isna().any(axis=None):  # else the header or the split is missing, and that is said
            run.confusion[run.vote()] = named
    run.transfer.update(reader.metrics(folders.metrics / "transfer.json"))
    matrix = reader.table(folders.plots / "transfer" / "matrix.csv")
    if matrix is not None and run.transfer.get("n"):
        run.crossings[run.transfer["suite"], float(run.transfer["eps"])] = matrix


def ensemble_tables(run: Run, confidence: float) -> list[Table]:
    """Members, methods, the grid of attacks, and the transfer matrix with its intervals."""
    return [
        weights_table(run),
        methods_table(run, confidence),
        attacks_table(run, confidence),
        *_transfer_tables(run, confidence),
    ]


def ensemble_text(run: Run) -> list[str]:
    """What votes, how the weights came to be, and what the test set had to do with it, in plain words."""
    record = run.ensemble
    if "method" not in record:
        return []
    votes = [name for name, weight in record.get("weights", {}).items() if weight > 0]
    lines = [f"Method in force: {record['method']}, {WORDS[record['method']]}."]
    if record["method"] != "equal":
        share, patients = record["robust_share"], record["val_patients"]
        part = (
            "the larger of clean and attacked log-loss counts"
            if record["objective"] == "worst"
            else f"attacked images count {share:.0%}, clean ones {1 - share:.0%}"
        )
        lines.append(
            f"Fitted on {record['val_n']} validation images of {patients} patients ({part}; attacked by the "
            "PGD of adversarial training, one image for all members). No test image was used, neither to fit "
            "nor to choose."
        )
    if record.get("temperatures"):
        lines.append(
            "Before the vote each member's logits are divided by its temperature on the same validation images."
        )
    if len(votes) == 1:
        others = " The others are not run." if len(record["weights"]) > 1 else ""
        lines.append(f"Only {votes[0]} has a weight: this vote is that one model.{others}")
    elif left := [name for name, weight in record.get("weights", {}).items() if weight == 0]:
        lines.append(f"Without weight, and not run: {', '.join(left)}.")
    if absent := record.get("absent_from_val"):
        lines.append(f"No validation image of {', '.join(absent)}: the vote learned nothing of it.")
    return [*lines, *_separate_text(run)]


def weights_table(run: Run) -> Table:
    """Each member's weight (or that a regression has its say) and temperature."""
    weights, temperatures = run.ensemble.get("weights", {}), run.ensemble.get("temperatures", {})
    rows = [
        [
            name,
            number(weights[name]) if weights else "by regression",
            *([number(temperatures[name])] if temperatures else []),
        ]
        for name in run.ensemble.get("members", weights)
    ]
    columns = ["member", "weight", *(["temperature"] if temperatures else [])]
    return Table("Who votes", columns, rows, "Fitted on validation images, clean and attacked.")


def methods_table(run: Run, confidence: float) -> Table:
    """Every method on validation patients that it was not fitted on, and on clean test images."""
    rows = []
    for name, record in run.methods.items():
        label = f"{name} (in force)" if name == run.ensemble.get("method") else name
        if "not_fitted" in record:
            rows.append([label, *[NONE] * 6, f"not possible: {record['impossible']}"])
            continue
        cells = [number(record.get(f"val_{key}")) for key in ("log_loss", "robust_log_loss", "balanced_accuracy")]
        cells += [with_interval(record, "test_balanced_accuracy"), with_interval(record, "test_accuracy")]
        rows.append([label, *cells, number(record.get("test_log_loss")), number(record.get("test_ece"))])
    columns = ["method", "validation log-loss", "validation log-loss, attacked", "validation balanced accuracy"]
    columns += ["test balanced accuracy", "test accuracy", "test log-loss", "test ECE"]
    note = (
        "Validation out of fold: each patient is judged by a vote that was fitted, and whose penalty was chosen, "
        "without him. Attacked: by images made on the equal vote. Test images are clean; brackets are "
        f"{confidence:.0%} intervals over whole patients. Choose by the validation columns: a choice by the test "
        "columns makes the test set a validation set."
    )
    for name, record in run.methods.items():
        if "val_missing" in record:
            note += f" No validation figures of {name}: {record['val_missing']}."
    return Table("Ways to vote", columns, rows, note).warned(confidence, run.fewest())


def transfer_grids(run: Run) -> list[Grid]:
    """The transfer matrix as a heat map: rows are where images were made, columns who judges them."""
    return [_grid(run, suite, eps, matrix) for (suite, eps), matrix in run.crossings.items()]


def _grid(run: Run, suite: str, eps: float, matrix: pd.DataFrame) -> Grid:
    cells = _cells(matrix)
    judges = list(dict.fromkeys(matrix["judge"]))
    sources = [CLEAN, *judges]
    rates: list[list[float]] = [
        [float(cells[source, judge]["accuracy"]) for judge in judges] for source in sources
    ]
    told = [
        [
            f"{judge} on images made on {source}: {ranged(row['accuracy'], row['low'], row['high'])}"
            if source != CLEAN
            else f"{judge} on clean images: {ranged(row['accuracy'], row['low'], row['high'])}"
            for judge in judges
            for row in [cells[source, judge]]
        ]
        for source in sources
    ]
    note = (
        f"Accuracy of the model in the column on {run.transfer['n']} test images of {run.transfer['patients']} "
        f"patients, attacked by {suite} at ε {eps:g} on the model in the row. The diagonal is the white box. "
        "Attacks run to their last step, because images that stop at one model's boundary fool no other."
    )
    return Grid(f"Transfer: {suite}, ε {eps:g}", "made on ↓ judged by →", sources, judges, rates, told, note)


def _cells(matrix: pd.DataFrame) -> dict[tuple[str, str], dict[Any, Any]]:
    """(source, judge) -> row of a transfer matrix."""
    return {(row["source"], row["judge"]): row for row in matrix.to_dict("records")}


def _transfer_tables(run: Run, confidence: float) -> list[Table]:
    tables = []
    for (suite, eps), matrix in run.crossings.items():
        judges, cells = list(dict.fromkeys(matrix["judge"])), _cells(matrix)
        rows = []
        for source in (CLEAN, *judges, SEPARATE):
            found = [cells.get((source, judge)) for judge in judges]
            rows.append([source, *(ranged(r["accuracy"], r["low"], r["high"]) if r else NONE for r in found)])
        note = (
            f"Brackets are {confidence:.0%} intervals over whole patients. Row “{SEPARATE}”, for comparison "
            "only: each member of the vote gets an image of its own, as in the study that this project starts "
            "from. No single image does that, so the figure bounds nothing."
        )
        columns = ["images made on", *(f"judged by {judge}" for judge in judges)]
        table = Table(f"Transfer with intervals: {suite}, ε {eps:g}", columns, rows, note, folded=True)
        tables.append(table.warned(confidence, run.transfer.get("patients")))
    return tables


def _separate_text(run: Run) -> list[str]:
    lines = []
    apart_by_cell = run.judged(SEPARATE, *run.vote())
    for (suite, eps), together in run.judged(name_of(*run.vote()), *run.vote()).items():
        if apart := apart_by_cell.get((suite, eps)):
            one, each = (ranged(row["accuracy"], row["low"], row["high"]) for row in (together, apart))
            lines.append(
                f"Against {suite} at ε {eps:g} the vote keeps {one} of {run.transfer['n']} images if one image "
                "is made for all that vote. With a separate image for each (the starting study's way, no "
                f"attack on the vote): {each}."
            )
    return lines
