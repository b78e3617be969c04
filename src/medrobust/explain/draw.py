"""Draw explanations: large type for reading on phones, and colours that colour-blind readers can tell apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from medrobust.explain.landscape import REACH, FeatureMap, Surface

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, Normalize

#: From transparent to orange (Okabe & Ito) over a grey image, which stays visible underneath.
HEAT = LinearSegmentedColormap.from_list("heat", [(0.9, 0.37, 0, 0), (0.9, 0.37, 0, 0.85)])
#: Classes in the feature picture: a colour of Okabe & Ito, and a marker for grey prints.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
MARKERS = "osD^vPX"
#: The colour scale of saliency ends at this quantile of the map; else a few pixels leave the others dark.
CEILING = 0.99
TITLES = {"gradcam": "Grad-CAM", "saliency": "input gradient"}
DPI = 120
STYLE: Any = {
    "font.size": 9, "svg.hashsalt": "medrobust", "svg.fonttype": "none",
    "text.parse_math": False,  # a `$` in a class name is a `$`
}  # fmt: skip


@dataclass(frozen=True)
class ImageVersion:
    """A clean or attacked image: pixels H×W or H×W×3 in [0, 1], maps H×W by kind, and the prediction in words."""

    pixels: np.ndarray
    maps: dict[str, np.ndarray]
    prediction: str


@dataclass(frozen=True)
class Panel:
    """A chosen image before and after its attack; the change is drawn `scale` times as large."""

    name: str
    truth: str
    clean: ImageVersion
    attacked: ImageVersion
    scale: float
    caption: str


def draw_panel(panel: Panel) -> Any:
    """Two rows: the clean image and its maps; the attacked image, its maps, and the change."""
    kinds = list(panel.clean.maps)
    columns = 2 + len(kinds)
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(1.45 * columns, 3.9))
        rows = zip(
            np.asarray(figure.subfigures(2, 1)), (panel.clean, panel.attacked), ("Clean", "Attacked"), strict=True
        )
        for row, version, name in rows:
            row.text(0.01, 0.97, f"{name}: predicted {version.prediction}", size=10, weight="bold", va="top")
            axes = row.subplots(1, columns)
            row.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.76, wspace=0.05)
            _image(axes[0], version.pixels, "image")
            for cell, kind in zip(axes[1:], kinds, strict=False):
                _image(cell, _grey(version.pixels), TITLES[kind])
                cell.imshow(version.maps[kind], cmap=HEAT, vmin=0, vmax=_ceiling(kind, version.maps[kind]))
            if version is panel.clean:
                axes[-1].set_axis_off()
                _legend(row, axes[-1], panel.truth)
            else:
                change = _grey(panel.attacked.pixels) - _grey(panel.clean.pixels)
                _bare(axes[-1], f"change ×{panel.scale:.3g}")
                axes[-1].imshow(change * panel.scale, cmap="PuOr_r", vmin=-0.5, vmax=0.5)
    return figure


def draw_features(features: FeatureMap, labels: np.ndarray, moved: np.ndarray, classes: list[str]) -> Any:
    """Clean features by true class (`labels`, int n); attacked ones as crosses with a line from the clean one.

    `moved` is the position of each attacked image among the clean ones, int m.
    """
    with mpl.rc_context(STYLE):
        columns = 2 if features.tsne is not None else 1
        figure, grid = plt.subplots(1, columns, figsize=(3.0 * columns, 3.5), squeeze=False, layout="constrained")
        first = grid[0][0]
        for start, end in zip(features.clean[moved], features.attacked, strict=True):
            first.plot([start[0], end[0]], [start[1], end[1]], color="#888888", lw=0.5, zorder=1)
        _scatter(first, features.clean, labels, classes)
        colours = np.array([COLOURS[k % len(COLOURS)] for k in labels[moved]])
        first.scatter(*features.attacked.T, c=colours, marker="x", s=26, lw=1.3, zorder=3)
        first.scatter([], [], c="black", marker="x", s=26, lw=1.3, label="attacked (colour: its true class)")
        first.set_title(f"principal components ({features.explained:.0%})", fontsize=9)
        if features.tsne is not None:
            _scatter(grid[0][1], features.tsne[: len(labels)], labels, classes)
            joint = len(features.tsne) > len(labels)
            if joint:
                grid[0][1].scatter(*features.tsne[len(labels) :].T, c=colours, marker="x", s=26, lw=1.3, zorder=3)
            grid[0][1].set_title(f"t-SNE, {'clean and attacked' if joint else 'clean images only'}", fontsize=9)
        figure.legend(
            *first.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8
        )
    return figure


def draw_surfaces(surfaces: dict[str, Surface], eps: float) -> Any:
    """Loss around each image, by title, on a common scale; the outline is the ball, the cross is the image."""
    top = max(float(surface.losses.max()) for surface in surfaces.values())
    low = min(float(surface.losses.min()) for surface in surfaces.values())
    with mpl.rc_context(STYLE):
        size = (2.0 * len(surfaces) + 0.9, 2.7)
        figure, grid = plt.subplots(
            1, len(surfaces), figsize=size, squeeze=False, sharey=True, layout="constrained"
        )
        levels, ends = np.linspace(low, max(top, low + 1e-6), 15), (-REACH, REACH)
        for axes, (title, surface) in zip(grid[0], surfaces.items(), strict=True):
            steps = surface.offsets / eps
            drawn = axes.contourf(steps, steps, surface.losses, levels, cmap="cividis")
            axes.plot(*surface.outline.T / eps, color="white", lw=1)
            axes.plot(0, 0, "+", color="white", ms=9)
            axes.set_title(title, fontsize=9)
            axes.set(xlabel="gradient direction (ε)", aspect="equal", xticks=np.arange(-REACH, REACH + 1))
            axes.set(xlim=ends, ylim=ends)
        grid[0][0].set(ylabel="random direction (ε)", yticks=np.arange(-REACH, REACH + 1))
        ticks = mpl.ticker.MaxNLocator(5).tick_values(low, top)
        figure.colorbar(drawn, ax=grid[0], label="loss (nats)", ticks=ticks, shrink=0.9)
    return figure


def save(figure: Any, folder: Path, name: str) -> None:
    """Write a figure as PNG, and as SVG if it holds no images; the same data give the same bytes.

    The PNG has 256 colours, which takes a third of the space. They are spread over all colours that occur: if they
    were chosen by frequency, none would match a small colour bar.
    """
    if not any(axes.images for axes in figure.axes):
        with mpl.rc_context(STYLE):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    quantized = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    quantized.save(folder / f"{name}.png", optimize=True)
    plt.close(figure)


def _scatter(axes: Any, points: np.ndarray, labels: np.ndarray, classes: list[str]) -> None:
    for k, name in enumerate(classes):
        own = points[labels == k]
        style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        label = f" {name}" if name.startswith("_") else name  # matplotlib hides labels that start with it
        axes.scatter(*own.T, s=14, lw=0, alpha=0.75, label=label, zorder=2, **style)
    axes.set(xticks=[], yticks=[])


def _image(axes: Any, pixels: np.ndarray, title: str) -> None:
    _bare(axes, title)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)


def _bare(axes: Any, title: str) -> None:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9, pad=3)


def _legend(figure: Any, axes: Any, truth: str) -> None:
    axes.text(0.5, 1.0, f"truth:\n{truth}", ha="center", va="top", fontsize=8, transform=axes.transAxes)
    for height, cmap, limits, words in (
        (0.5, HEAT, (0, 1), ("importance", "0", "most")),
        (0.1, "PuOr_r", (-0.5, 0.5), ("change", "darker", "brighter")),
    ):
        inset = axes.inset_axes([0.2, height, 0.6, 0.09])
        shades = mpl.cm.ScalarMappable(Normalize(*limits), cmap)
        bar = figure.colorbar(shades, cax=inset, orientation="horizontal", ticks=limits)
        bar.ax.set_xticklabels(words[1:], fontsize=7.5)
        bar.ax.tick_params(length=0, pad=2)
        bar.ax.set_title(words[0], fontsize=8, pad=3)


def _ceiling(kind: str, shown: np.ndarray) -> float:
    top = float(np.quantile(shown, CEILING)) if kind == "saliency" else 1.0
    return top if top > 0 else 1.0


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean(2) if pixels.ndim == 3 else pixels
