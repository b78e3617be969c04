"""A few images of every class, chosen by a fixed rule, as the models see them."""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.data.store import ImageStore


def sheet_rows(manifest: pd.DataFrame, count: int) -> dict[str, list[int]]:
    """Manifest rows to show, by class: the middle slices of patients that are evenly spaced, sorted by id.

    Images without a patient id count as one patient each. Synthetic images are shown only if a class has no real
    image.
    """
    chosen: dict[str, list[int]] = {}
    for label, group in manifest.reset_index(drop=True).groupby("label", sort=False):
        real = group[group["kind"] == "real"]
        part = real if len(real) else group
        owner = part["patient"].where(part["patient"] != "", part["id"])
        ordered = part.assign(owner=owner).sort_values(["owner", "slice", "id"], kind="stable")
        middle = [rows[len(rows) // 2] for rows in ordered.groupby("owner").groups.values()]
        positions = np.unique(np.linspace(0, len(middle) - 1, min(count, len(middle))).round().astype(int))
        chosen[str(label)] = [int(middle[position]) for position in positions]
    return chosen


def class_sheet(store: ImageStore, count: int) -> Any:
    """A figure with one row of images per class, in the order of the grades."""
    import matplotlib.pyplot as plt

    chosen = sheet_rows(store.manifest, count)
    names = [name for name in store.header.classes if name in chosen]
    columns = max(len(rows) for rows in chosen.values())
    figure, grid = plt.subplots(len(names), columns, figsize=(1.1 * columns, 1.4 * len(names)), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for name, row in zip(names, grid, strict=True):
        title = f"{name} ({store.header.counts.get(name, 0)} images)"
        # A long name must not widen the first column.
        row[0].set_title(title, loc="left", fontsize=10).set_in_layout(False)
        for index, axes in zip(chosen[name], row, strict=False):
            axes.imshow(np.asarray(store.images[index]), cmap="gray", vmin=0, vmax=255)
    return figure
