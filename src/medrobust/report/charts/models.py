"""What the page's charts show, as plain data that its script draws; the static figures take the same numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medrobust.report.collect import REGIMES, Run
from medrobust.report.tables.cells import number, ranged
from medrobust.report.tables.models import TRAINING

#: Ratio of the largest to the smallest radius above which the axis of radii is no longer linear.
WIDE = 20


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Attributes:
        name: unique on the page.
        title, x, y: words, with units.
        series: `name`, `colour` (index), `dashed`, `points`: [x, y] or [x, y, low, high] each.
        top: the upper end of the y axis; None is the largest value.
        mark: an x and its name, where a line stands.
        bend: width of the linear part of a wide x axis (asinh beyond it); 0 = all linear.
        columns, rows: a table of text for each x, shown where the slider stands; None = no slider.
    """

    name: str
    title: str
    x: str
    y: str
    series: list[dict[str, Any]]
    top: float | None = None
    mark: tuple[float, str] | None = None
    bend: float = 0.0
    columns: tuple[str, ...] = ()
    rows: dict[str, list[list[str]]] | None = None


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of the classes that occur: counts, and shares of the true class (None if absent)."""

    title: str
    classes: list[str]
    counts: list[list[int]]
    rates: list[list[float | None]]


def radius_label(norm: str) -> str:
    """The words at an axis of radii."""
    return f"ε ({ {'Linf': 'L∞', 'L2': 'L2'}.get(norm, norm) } radius, [0, 1] pixel units)"


def bend(radii: list[float]) -> float:
    """Where an axis of radii stops being linear: 0 if it need not."""
    positive = [radius for radius in radii if radius > 0]
    return min(positive) if positive and max(positive) / min(positive) > WIDE else 0.0


def curve_points(run: Run, key: tuple[str, str, str]) -> list[list[float]]:
    """[eps, accuracy, low, high] of an evaluation, from its clean accuracy at 0 on; [] if it is missing."""
    curve, record = run.curves.get(key), run.attack.get(key)
    if curve is None or record is None:
        return []
    start = record["clean_accuracy"]
    low, high = run.clean(*key[:2]).get("accuracy_ci", (start, start))
    points = curve[["eps", "robust_accuracy", "low", "high"]].to_numpy().tolist()
    return [[0.0, start, low, high], *points]


def robust_curve(run: Run, suite: str, norm: str) -> Chart | None:
    """Accuracy against the radius, all models in one chart, with a slider over the radii."""
    series: list[dict[str, Any]] = []
    rows: list[tuple[str, str]] = []
    for model, regime in run.models():
        points = curve_points(run, (model, regime, suite))
        if points:
            name = f"{model}, {TRAINING[regime]}"
            line = {"name": name, "colour": colour(run, model), "dashed": regime == "clean", "points": points}
            series.append(line)
            rows.append((model, regime))
    if not series:
        return None
    radii = sorted({point[0] for line in series for point in line["points"]})
    table = {f"{radius:g}": [_row(run, key, suite, radius) for key in rows] for radius in radii}
    return Chart(
        f"curve-{suite}", f"Accuracy under {suite}", radius_label(norm), "accuracy", series, 1.0,
        training_mark(run, norm), bend(radii),
        ("model", "training", "accuracy", "balanced", "kept of clean", "checklist"), table,
    )  # fmt: skip


def training_mark(run: Run, norm: str) -> tuple[float, str] | None:
    """Where a chart of radii marks that of training: nowhere if there are several, or another norm."""
    trained = set(run.trained_at().values())
    return (trained.pop(), "training ε") if norm == "Linf" and len(trained) == 1 else None


def _row(run: Run, model: tuple[str, str], suite: str, radius: float) -> list[str]:
    key = (*model, suite)
    record = run.attack[key]
    points = {point[0]: point for point in curve_points(run, key)}
    if radius not in points:
        return [model[0], TRAINING[model[1]], "not attacked here", *["–"] * 3]
    _, accuracy, low, high = points[radius]
    balanced = {"0": record.get("clean_balanced_accuracy"), **record.get("robust_balanced_accuracy", {})}
    kept = accuracy / points[0.0][1] if points[0.0][1] else None
    return [
        model[0],
        TRAINING[model[1]],
        ranged(accuracy, low, high),
        number(balanced.get(f"{radius:g}")),
        f"{kept:.0%}" if kept is not None else "–",
        run.verdict_of(*key),
    ]


def training_charts(run: Run) -> list[Chart]:
    """Loss, and balanced accuracy on validation images (dashed: attacked), by epoch; a pair a regime."""
    charts = []
    for regime in REGIMES:
        found = {b: run.history[b, regime] for b in run.backbones if (b, regime) in run.history}
        if not found:
            continue
        loss = [_line(run, b, b, table, "loss") for b, table in found.items()]
        accuracy = [_line(run, b, b, table, "val_balanced_accuracy") for b, table in found.items()]
        accuracy += [
            _line(run, b, f"{b}, attacked", table, "val_robust_balanced_accuracy", dashed=True)
            for b, table in found.items()
            if "val_robust_balanced_accuracy" in table
        ]
        what = f"{TRAINING[regime].capitalize()} training"
        charts.append(Chart(f"loss-{regime}", f"{what}: loss", "epoch", "training loss (nats)", loss))
        charts.append(
            Chart(f"validation-{regime}", f"{what}: validation", "epoch", "balanced accuracy", accuracy, 1.0)
        )
    return charts


def _line(
    run: Run, backbone: str, name: str, table: pd.DataFrame, column: str, *, dashed: bool = False
) -> dict[str, Any]:
    known = table[["epoch", column]].dropna()
    points = [[int(epoch), round(float(value), 6)] for epoch, value in known.itertuples(index=False)]
    return {"name": name, "colour": colour(run, backbone), "dashed": dashed, "points": points}


def colour(run: Run, model: str) -> int:
    """A model's place in the palette, the same in every chart and figure."""
    return [*run.backbones, "ensemble"].index(model)


def matrices(run: Run) -> list[Matrix]:
    """The confusion matrices on clean test images."""
    found = []
    for (model, regime), table in run.confusion.items():
        names, counts = confusion_counts(table, run.header.get("classes", []))
        sums = counts.sum(1)
        rates = [
            [float(count / total) if total else None for count in row]
            for row, total in zip(counts, sums, strict=True)
        ]
        found.append(Matrix(f"{model}, {TRAINING[regime]}", names, counts.tolist(), rates))
    return found


def confusion_counts(table: pd.DataFrame, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """The classes that occur as truth or answer, in the header's order, and int K×K counts (rows: truth)."""
    seen = {*table["actual"], *table["predicted"]}
    names = [name for name in classes if name in seen] + sorted(seen - set(classes))
    counts = pd.crosstab(table["actual"], table["predicted"]).reindex(index=names, columns=names, fill_value=0)
    return names, counts.to_numpy()
