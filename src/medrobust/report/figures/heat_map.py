"""The transfer matrix as a figure."""

from typing import Any

import numpy as np

from medrobust.report.tables.transfer import Grid

#: Above this share `Blues` is too dark for black text.
DARK = 0.71


def ink(rate: float) -> str:
    """The colour of text on the shade of a share in matplotlib's `Blues` (with a contrast of at least 4.5)."""
    return "white" if rate > DARK else "black"


def heat_map(grid: Grid) -> Any:
    """A figure with the accuracy of every model (columns) on the images made on every model (rows)."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    rates = np.array(grid.rates)
    figure, axes = plt.subplots(figsize=(0.62 * rates.shape[1] + 1.8, 0.38 * rates.shape[0] + 1.2))
    axes.imshow(rates, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), rate in np.ndenumerate(rates):
        axes.text(j, i, f"{rate:.2f}", ha="center", va="center", fontsize=7, color=ink(rate))
        if grid.rows[i] == grid.columns[j]:
            axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, lw=1.2, ec="black"))
    axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(grid.rows)), grid.rows, fontsize=7)
    axes.set(xlabel="evaluated on", ylabel="images made on", title=f"{grid.title}: accuracy")
    return figure
