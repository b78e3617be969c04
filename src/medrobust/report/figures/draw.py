"""Draw all figures of the report as PNG and SVG, in the colour-blind safe palette of Okabe and Ito."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from medrobust.report.charts.chart import Chart, colour
from medrobust.report.charts.confusion import matrices
from medrobust.report.charts.corruptions import corruption_charts
from medrobust.report.charts.robustness import robust_curve
from medrobust.report.charts.training import training_charts
from medrobust.report.figures.detection import detection_figures
from medrobust.report.figures.heat_map import heat_map, shade
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
        "text.parse_math": False,  # a `$` in a class name is a `$`
    }
)


def draw_all(run: Run, folder: Path, norms: Mapping[str, str]) -> dict[str, Path]:
    """Draw every figure that the run has data for; name -> PNG file (the SVG is beside it). `norms`: by suite."""
    drawn = {f"robust_accuracy_{suite}": robust_accuracy(run, suite, norm) for suite, norm in norms.items()}
    drawn |= {
        f"transfer_{suite}": heat_map(grid)
        for (suite, _), grid in zip(run.ensemble.matrices, transfer_grids(run), strict=True)
    }
    drawn |= {"training": training(run), "confusion": confusion(run), **detection_figures(run)}
    drawn |= {chart.name.replace("-", "_"): corruptions(chart) for chart in corruption_charts(run)}
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
    chart = robust_curve(run, suite, norm)
    if chart is None:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    _lines(axes, chart, ":", ms=4)
    if chart.bend:
        radii = sorted({point[0] for line in chart.series for point in line["points"]})
        axes.set_xscale("asinh", linear_width=chart.bend)
        axes.set_xticks(radii, [f"{radius:g}" for radius in radii])
    if chart.mark:
        axes.axvline(chart.mark[0], color="grey", lw=0.8, ls="--")
        style: dict[str, Any] = {"xytext": (3, -2), "textcoords": "offset points", "color": "grey", "fontsize": 8}
        axes.annotate(chart.mark[1], (chart.mark[0], 1.0), **style)
    if chart.floor:
        axes.axhline(chart.floor[0], color="grey", lw=0.8, ls="--")
        place: dict[str, Any] = {"xytext": (-3, 2), "textcoords": "offset points", "color": "grey", "fontsize": 8}
        axes.annotate(chart.floor[1], (1, chart.floor[0]), xycoords=("axes fraction", "data"), ha="right", **place)
    axes.set(ylim=(0, 1.02), xlim=(0, None), title=suite)
    figure.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0))
    return figure


def corruptions(chart: Chart) -> Any:
    """Balanced accuracy against the L2 distance: corruptions, their worst cases, and an attack."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    _lines(axes, chart, ":", ms=4)
    if chart.bend:
        axes.set_xscale("asinh", linear_width=chart.bend)
        largest = max(point[0] for line in chart.series for point in line["points"])
        ticks = [tick for tick in (0, 0.1, 0.3, 1, 3, 10, 30, 100) if tick == 0 or chart.bend <= tick <= largest]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    for line in axes.lines:
        line.set_clip_on(False)  # the worst cases are often at 0
    axes.set(ylim=(0, 1.02), xlim=(0, None))
    axes.set_title(chart.title, fontsize=9)
    figure.legend(fontsize=7, ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0))
    return figure


def training(run: Run) -> Any:
    """Loss and validation balanced accuracy by epoch, one row per regime."""
    charts = {chart.name: chart for chart in training_charts(run)}
    if not charts:
        return None
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 4.6), sharex="row", layout="constrained")
    for regime, row in zip(REGIMES, grid, strict=True):
        for axes, name in zip(row, ("loss", "validation"), strict=True):
            if chart := charts.get(f"{name}-{regime}"):
                _lines(axes, chart, "--", ms=3)
            axes.xaxis.get_major_locator().set_params(integer=True)
        row[0].set(title=f"{TRAINING[regime]} training", ylim=(0, None))
        row[1].set(title="validation (dashed: attacked)", ylim=(0, 1))
    handles = {line.get_label(): line for axes in grid[:, 0] for line in axes.lines}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _lines(axes: Any, chart: Chart, dash: str, ms: float) -> None:
    """Draw the lines of a chart with their bands; `dash` is the style of dashed lines, `ms` the marker size."""
    for line in chart.series:
        index = line["colour"] % len(COLOURS)
        x, y, *band = zip(*line["points"], strict=True)
        # A colour that comes a second time has another shape.
        marker = MARKERS[(line["colour"] + line["colour"] // len(COLOURS)) % len(MARKERS)]
        style = {"color": COLOURS[index], "marker": marker, "ms": ms, "label": line["name"]}
        joined = dash if line["dashed"] else "-"
        axes.plot(x, y, ls="none" if line.get("loose") else joined, **style)
        if band:
            axes.fill_between(x, *band, color=COLOURS[index], alpha=0.08, lw=0)
    axes.set(xlabel=chart.x, ylabel=chart.y)


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
    for (model, regime), matrix in zip(run.confusion, matrices(run), strict=True):
        axes = grid[REGIMES.index(regime)][colour(run, model)]
        axes.set_axis_on()
        texts = [
            ["–" if rate is None else f"{count}\n{rate:.0%}" for count, rate in zip(*row, strict=True)]
            for row in zip(matrix.counts, matrix.rates, strict=True)
        ]
        shade(axes, np.array(matrix.rates, float), texts, matrix.classes, matrix.classes)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(matrix.title, fontsize=8)
    return figure
