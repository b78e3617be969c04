"""The report's figures, each written as PNG and SVG; colours are those of Okabe and Ito, safe for all eyes."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from medrobust.report.collect import REGIMES, Run
from medrobust.report.tables import TRAINING

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "medrobust",
        "svg.fonttype": "none",
    }
)


def draw_all(run: Run, folder: Path, eps: float) -> dict[str, Path]:
    """Draw every figure that the run has data for; name -> SVG file."""
    drawn = {f"robust_accuracy_{suite}": robust_accuracy(run, suite, eps) for suite in run.suites}
    drawn |= {"training": training(run), "confusion": confusion(run)}
    files = {}
    for name, figure in drawn.items():
        if figure is None:
            continue
        files[name] = folder / f"{name}.svg"
        # Without the date the same data give the same bytes.
        figure.savefig(files[name], bbox_inches="tight", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=150, metadata={"Software": None})
        plt.close(figure)
    return files


def robust_accuracy(run: Run, suite: str, eps: float) -> Any:
    """Accuracy against the radius, all models in one figure, bands are patient intervals."""
    curves = {key: curve for key, curve in run.curves.items() if key[2] == suite}
    if not curves:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    names = [*run.backbones, "ensemble"]
    for (model, regime, _), curve in curves.items():
        record = run.attack.get((model, regime, suite))
        colour = COLOURS[names.index(model) % len(COLOURS)]
        points = curve[["eps", "robust_accuracy", "low", "high"]]
        if record:
            start = record["clean_accuracy"]
            first = pd.DataFrame([[0.0, start, start, start]], columns=points.columns)
            points = pd.concat([first, points])
        style = "-" if regime == "adv" else ":"
        axes.plot(points["eps"], points["robust_accuracy"], style, color=colour, marker="o", ms=3,
                  label=f"{model}, {TRAINING[regime]}")  # fmt: skip
        axes.fill_between(points["eps"], points["low"], points["high"], color=colour, alpha=0.08, lw=0)
    axes.axvline(eps, color="grey", lw=0.8, ls="--")
    axes.annotate("training ε", (eps, 1.0), xytext=(3, -2), textcoords="offset points", color="grey", fontsize=8)
    axes.set(
        xlabel="ε (L∞ radius, [0, 1] pixel units)",
        ylabel="accuracy under attack",
        ylim=(0, 1.02),
        xlim=(0, None),
    )
    axes.legend(fontsize=7, ncols=2, frameon=False)
    return figure


def training(run: Run) -> Any:
    """Loss and validation balanced accuracy by epoch, a row a regime."""
    if not run.history:
        return None
    figure, grid = plt.subplots(2, 2, figsize=(7.2, 4.6), sharex="row", layout="constrained")
    for (backbone, regime), history in run.history.items():
        row, colour = grid[REGIMES.index(regime)], COLOURS[run.backbones.index(backbone)]
        row[0].plot(history["epoch"], history["loss"], color=colour, label=backbone)
        robust = "val_robust_balanced_accuracy"
        row[1].plot(history["epoch"], history["val_balanced_accuracy"], color=colour, label=backbone)
        if robust in history:
            row[1].plot(history["epoch"], history[robust], color=colour, ls="--")
    for regime, row in zip(REGIMES, grid, strict=True):
        row[0].set(ylabel="training loss", title=f"{TRAINING[regime]} training")
        row[1].set(ylabel="balanced accuracy", ylim=(0, 1), title="validation (dashed: attacked)")
        for axes in row:
            axes.set_xlabel("epoch")
    grid[0][0].legend(fontsize=7, frameon=False)
    return figure


def confusion(run: Run) -> Any:
    """Confusion matrices on clean test images: rates as colour, counts as text."""
    if not run.confusion:
        return None
    classes = run.header["classes"]
    figure, grid = plt.subplots(
        len(REGIMES),
        len(run.backbones),
        figsize=(2.6 * len(run.backbones) + 1, 5.4),
        squeeze=False,
        layout="constrained",
    )
    for (backbone, regime), table in run.confusion.items():
        axes = grid[REGIMES.index(regime)][run.backbones.index(backbone)]
        present = [name for name in classes if name in set(table["actual"]) | set(table["predicted"])]
        counts = pd.crosstab(table["actual"], table["predicted"]).reindex(
            index=present, columns=present, fill_value=0
        )
        rates = counts.to_numpy() / np.maximum(counts.to_numpy().sum(1, keepdims=True), 1)
        axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for (i, j), rate in np.ndenumerate(rates):
            shade = "white" if rate > 0.5 else "black"
            axes.text(j, i, str(int(counts.to_numpy()[i, j])), ha="center", va="center", fontsize=8, color=shade)
        short = [name.replace("Demented", "").strip("_ ") or name for name in present]
        axes.set_xticks(range(len(present)), short, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(present)), short, fontsize=7)
        axes.set(title=f"{backbone}, {TRAINING[regime]}", xlabel="predicted", ylabel="true")
        axes.title.set_fontsize(8)
    return figure
