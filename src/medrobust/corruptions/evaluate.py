"""Predictions of a model on corrupted images, and the search for the worst corruption of each image."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medrobust.attacks.base import frozen
from medrobust.attacks.projection import distance
from medrobust.core.runtime import progress
from medrobust.core.seeds import image_seeds
from medrobust.corruptions.lookup import load_corruption
from medrobust.data.store import Subset
from medrobust.models.predict import batches

BATCH = 128
#: `corruption` of the rows of clean images, whose severity is 0.
CLEAN = "none"
#: Columns of the predictions; `distance` is the L2 distance from the clean image, `draw` 0 outside the search.
COLUMNS = ["id", "patient", "label", "corruption", "severity", "draw", "pred", "distance"]


def corrupted_predictions(
    model: nn.Module, subset: Subset, names: list[str], severities: list[int], *, draws: int, seed: int
) -> pd.DataFrame:
    """Predict images or patients, clean and under every corruption and severity, and search for worse ones.

    The search is an adversary inside a corruption. It draws the random parameters of an image again, `draws` - 1
    times, at each severity from the strongest on, and ends at the first wrong prediction. It tries images that
    the model classified correctly so far. The parameters depend on the image's id, the seed, the corruption and
    the number of the draw alone. A row with several images is a patient: its images are one series, whose
    parameters depend on the id of the row (see `Corruption.per_series`).

    Args:
        model: logits of the rows of `subset`.
        subset: images n×C×H×W, or patients n×(S·C)×H×W, as `batch` gives them.
        names: of corruptions.
        severities: 1 to 5.
        draws: of the random parameters, 1 without a search.
        seed: of the run.

    Returns:
        Table of `COLUMNS`, clean images first. Every row has a row per corruption and severity with draw 0;
        rows with higher draws are those of the search. `distance` of a patient is that of all images together.
    """
    cell = _Cell(model, subset, seed)
    with frozen(model), torch.inference_mode():
        tables = [cell.predict(CLEAN, 0, 0, np.arange(len(subset)))]
        right = tables[0]["pred"].to_numpy() == subset.labels
        for name in progress(names, "corruptions", unit="corruption"):
            tables += cell.corrupt(name, severities, draws, right)
    return pd.concat(tables, ignore_index=True)


class _Cell:
    """A model on the rows of a subset."""

    def __init__(self, model: nn.Module, subset: Subset, seed: int) -> None:
        self.model, self.subset, self.seed = model, subset, seed
        self.images_per_row = subset.rows[:1].size
        self.device = next(model.parameters()).device

    def corrupt(self, name: str, severities: list[int], draws: int, right: np.ndarray) -> list[pd.DataFrame]:
        """The tables of one corruption; `right`, bool n, are clean images that the model classifies correctly."""
        tables = [self.predict(name, severity, 0, np.arange(len(self.subset))) for severity in severities]
        rows = np.flatnonzero(np.logical_and.reduce([right, *(self._right(table) for table in tables)]))
        for draw in range(1, draws if load_corruption(name).random else 1):
            for severity in sorted(severities, reverse=True):
                if len(rows):
                    tables.append(self.predict(name, severity, draw, rows))
                    rows = rows[self._right(tables[-1])]
        return tables

    def _right(self, table: pd.DataFrame) -> np.ndarray:
        found: np.ndarray = (table["pred"] == table["label"]).to_numpy()
        return found

    def predict(self, name: str, severity: int, draw: int, rows: np.ndarray) -> pd.DataFrame:
        """The predictions for some images of the subset under one corruption."""
        preds, lengths = [], []
        for part in batches(len(rows), max(1, BATCH // self.images_per_row)):
            images = self.subset.batch(rows[part]).to(self.device)
            corrupted = images
            if name != CLEAN:
                ids = [f"{row}/{name}/{draw}" for row in self.subset.ids[rows[part]]]
                corrupted = self._corrupted(images, name, severity, ids)
            preds.append(self.model(corrupted).argmax(1).cpu())
            lengths.append(distance(corrupted, images, "L2").cpu())
        facts: dict[str, Any] = {key: getattr(self.subset, f"{key}s")[rows] for key in ("id", "patient", "label")}
        facts |= {"corruption": name, "severity": severity, "draw": draw}
        found = pd.DataFrame({**facts, "pred": torch.cat(preds).numpy(), "distance": torch.cat(lengths).numpy()})
        return found[COLUMNS].astype({"distance": "float64"}).round({"distance": 6})

    def _corrupted(self, images: Tensor, name: str, severity: int, ids: list[str]) -> Tensor:
        corruption, count = load_corruption(name), self.images_per_row
        if count > 1:
            numbers = [""] * count if corruption.per_series else [f"/{number}" for number in range(count)]
            ids = [f"{row}{number}" for row in ids for number in numbers]
        flat = images.reshape(len(ids), -1, *images.shape[-2:])
        return corruption(flat, severity, image_seeds(ids, self.seed).to(self.device)).reshape(images.shape)
