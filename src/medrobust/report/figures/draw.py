"""Draw all figures of the report as PNG and SVG, in the colour-blind safe palette of Okabe and Ito."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from medrobust.report.charts.chart import bend, colour
from medrobust.report.charts.confusion import confusion_counts
from medrobust.report.charts.robustness import curve_points, radius_label, training_mark
from medrobust.report.figures.detection import detection_figures
from medrobust.report.figures.heat_map import heat_map, ink
from medrobust.report.run import REGIMES, Run
from medrobust.report.tables.accuracy import TRAINING
from medrobust.report.tables.transfer import transfer_grids

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
#: One shape per model, to distinguish them in grey prints.
MARKERS = "osD^vPX"
mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "medrobust",
        "svg.fonttype": "none",
    }
)


def draw_all(run: Run, folder: Path, norms: Mapping[str, str]) -> dict[str, Path]:
    """Draw every figure that the run has data for; name -> PNG file (the SVG is beside it).

    Args:
        run: the results.
        folder: where the files go.
        norms: suite -> its norm.
    """
    drawn = {f"robust_accuracy_{suite}": robust_accuracy(run, suite, norm) for suite, norm in norms.items()}
    drawn |= {
        f"transfer_{suite}": heat_map(grid)
        for (suite, _), grid in zip(run.ensemble.matrices, transfer_grids(run), strict=True)
    }
    drawn |= {"training": training(run), "confusion": confusion(run), **detection_figures(run)}
    return {name: save(figure, folder, name) for name, figure in drawn.items() if figure is not None}


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write a figure as SVG and PNG and close it; the same data give the same bytes. Returns the PNG's path."""
    png = folder / f"{name}.png"
    figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(png, bbox_inches="tight", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return png


def robust_accuracy(run: Run, suite: str, norm: str) -> Any:
    """Accuracy against the radius, all models in one figure; bands are intervals over whole patients."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    radii: list[float] = []
    for model, regime in run.models():
        points = np.array(curve_points(run, (model, regime, suite)))
        if not len(points):
            continue
        radii += points[:, 0].tolist()
        index = colour(run, model) % len(COLOURS)
        axes.plot(
            points[:, 0], points[:, 1], ":" if regime == "clean" else "-", color=COLOURS[index],
            marker=MARKERS[index], ms=4, label=f"{model}, {TRAINING[regime]}",
        )  # fmt: skip
        axes.fill_between(points[:, 0], points[:, 2], points[:, 3], color=COLOURS[index], alpha=0.08, lw=0)
    if not radii:
        plt.close(figure)
        return None
    if width := bend(radii):
        axes.set_xscale("asinh", linear_width=width)
        axes.set_xticks(sorted(set(radii)), [f"{radius:g}" for radius in sorted(set(radii))])
    if mark := training_mark(run, norm):
        axes.axvline(mark[0], color="grey", lw=0.8, ls="--")
        style: dict[str, Any] = {"xytext": (3, -2), "textcoords": "offset points", "color": "grey", "fontsize": 8}
        axes.annotate(mark[1], (mark[0], 1.0), **style)
    label = "accuracy under attack"
    axes.set(xlabel=radius_label(norm), ylabel=label, ylim=(0, 1.02), xlim=(0, None), title=suite)
    figure.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0))
    return figure


def training(run: Run) -> Any:
    """Loss and validation balanced accuracy by epoch, one row per regime."""
    if not run.training.history:
        return None
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 4.6), sharex="row", layout="constrained")
    for (backbone, regime), history in run.training.history.items():
        index = colour(run, backbone) % len(COLOURS)
        row, style = grid[REGIMES.index(regime)], {"color": COLOURS[index], "marker": MARKERS[index], "ms": 3}
        robust = "val_robust_balanced_accuracy"
        row[0].plot(history["epoch"], history["loss"], label=backbone, **style)
        row[1].plot(history["epoch"], history["val_balanced_accuracy"], label=backbone, **style)
        if robust in history:
            row[1].plot(history["epoch"], history[robust], ls="--", **style)
    for regime, row in zip(REGIMES, grid, strict=True):
        row[0].set(ylabel="training loss (nats)", title=f"{TRAINING[regime]} training", ylim=(0, None))
        row[1].set(ylabel="balanced accuracy", ylim=(0, 1), title="validation (dashed: attacked)")
        for axes in row:
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
    handles = {h.get_label(): h for axes in grid[:, 0] for h in axes.lines}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def confusion(run: Run) -> Any:
    """Confusion matrices on clean test images: counts, and below them shares of the true class."""
    if not run.confusion:
        return None
    classes, columns = run.header.get("classes", []), len(run.backbones) + (run.ensemble.model in run.confusion)
    side = 0.62 * max(len(classes), 2) + 1.1
    size = (side * columns, side * len(REGIMES))
    figure, grid = plt.subplots(len(REGIMES), columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.set_axis_off()
    for (model, regime), table in run.confusion.items():
        axes = grid[REGIMES.index(regime)][colour(run, model)]
        axes.set_axis_on()
        present, counts = confusion_counts(table, classes)
        rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for (i, j), rate in np.ndenumerate(rates):
            text = f"{counts[i, j]}\n{rate:.0%}" if counts[i].sum() else "–"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=ink(rate))
        axes.set_xticks(range(len(present)), present, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(present)), present, fontsize=7)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"{model}, {TRAINING[regime]}", fontsize=8)
    return figure
