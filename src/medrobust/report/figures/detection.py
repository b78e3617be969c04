"""Figures of detection: one column per detector, and in every panel the unaware attacker beside the aware."""

from collections.abc import Callable
from functools import partial
from typing import Any

from medrobust.report.charts.chart import bend
from medrobust.report.charts.detection import ATTACKERS, UNITS, GuardedSuite, Points, guarded_suites
from medrobust.report.run import Run

#: Blue and vermilion of Okabe and Ito; line styles distinguish them in grey prints.
STYLES: dict[str, dict[str, Any]] = {
    "unaware": {"color": "#0072B2", "ls": "-"},
    "aware": {"color": "#D55E00", "ls": "--"},
}
GREY = "#7d858c"
#: Size of a panel in inches.
WIDTH, HEIGHT = 1.9, 1.75


def detection_figures(run: Run) -> dict[str, Any]:
    """Name -> one figure per guarded model and suite: ROC, precision-recall, cost by share and by threshold."""
    return {f"detection_{part.name}": _figure(part) for part in guarded_suites(run)}


def _figure(part: GuardedSuite) -> Any:
    import matplotlib.pyplot as plt

    columns = len(part.detectors)
    size = (max(WIDTH * columns, 2 * WIDTH) + 0.5, 5 * HEIGHT + 0.6)
    figure, grid = plt.subplots(5, columns, figsize=size, squeeze=False, sharey="row", layout="constrained")
    for detector, column in zip(part.detectors, grid.T, strict=True):
        column[0].set_title(detector, fontsize=9)
        _rates(column[0], part, "roc", detector)
        _rates(column[1], part, "pr", detector)
        for unit, axes in zip(UNITS, column[2:4], strict=True):
            _risk(axes, part, unit, detector)
        _threshold(column[4], part, detector)
    labels = (
        "true-positive rate", "precision", "cost by image", "cost by patient", f"cost, {part.share:.2g} attacked",
    )  # fmt: skip
    for label, row in zip(labels, grid, strict=True):
        row[0].set_ylabel(label, fontsize=8)
    for row in grid[2:]:  # last, because it ends the automatic scaling
        row[0].set_ylim(bottom=0)
    for axes in grid.flat:
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(7)
    figure.suptitle(
        f"{part.title}\n{part.sample()}\n"
        "ROC and precision of successful attacks; costs in units of an error of one grade",
        fontsize=9,
    )
    handles = {line.get_label(): line for axes in grid.flat for line in axes.lines if line.get_label()[0] != "_"}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _rates(axes: Any, part: GuardedSuite, kind: str, detector: str) -> None:
    steps = "steps-post" if kind == "roc" else "steps-pre"
    _lines(axes, partial(part.rates, kind, detector), drawstyle=steps)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=":", label="guessing (base rate)")
    for attacker in ATTACKERS if kind == "pr" else ():
        if (base := part.base_rate(detector, attacker)) is not None:
            axes.axhline(base, color=STYLES[attacker]["color"], lw=0.7, ls=":", label="_base rate")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="false-positive rate" if kind == "roc" else "recall")


def _risk(axes: Any, part: GuardedSuite, unit: str, detector: str) -> None:
    without = part.costs_by_share(unit, detector, "unaware", "cost_without")
    axes.plot(*zip(*without, strict=True), color=GREY, lw=1, marker="o", ms=2, label="no detector, unaware")
    _lines(axes, partial(part.costs_by_share, unit, detector), marker="o", ms=2)
    shares = [point[0] for point in without]
    if width := bend(shares):
        axes.set_xscale("asinh", linear_width=width)
        axes.set_xticks(shares, [f"{share:g}" for share in shares], rotation=45)
        axes.minorticks_off()
    axes.set_xlabel(f"share of attacked {unit}s")


def _threshold(axes: Any, part: GuardedSuite, detector: str) -> None:
    _lines(axes, partial(part.costs_by_threshold, detector), drawstyle="steps-post")
    axes.axvline(part.chosen(detector), color=GREY, lw=0.9, ls="-.", label="cheapest on validation")
    axes.set(xlim=(0, 1), xlabel="share of clean images rejected")


def _lines(axes: Any, read: Callable[[str], Points], **style: Any) -> None:
    """Draw one line per attacker; `read` gives its points."""
    for attacker in ATTACKERS:
        if points := read(attacker):
            axes.plot(*zip(*points, strict=True), label=attacker, **STYLES[attacker], **style)
