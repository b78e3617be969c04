"""What corruptions cost: balanced accuracy and its drop, the worst case, and the mean corruption error.

NumPy and pandas only. The tables are those of `evaluate.corrupted_predictions`.
"""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from medrobust.core import metrics
from medrobust.core.intervals import percentiles, resampled_confusions


class Summary:
    """Statistics of one model's predictions; intervals are over whole patients, as in `core.metrics`."""

    def __init__(self, table: pd.DataFrame, classes: list[str], *, resamples: int, confidence: float) -> None:
        self.table, self.classes = table, classes
        self.resamples, self.confidence = resamples, confidence
        self.clean = table[table["severity"] == 0]
        self.first = table[(table["draw"] == 0) & (table["severity"] > 0)]
        self.names = list(dict.fromkeys(self.first["corruption"]))
        self.severities = sorted({*self.first["severity"]})

    def record(self) -> dict[str, Any]:
        """The content of a metrics file: clean images, each corruption, the worst of all, the means over all."""
        corruptions = {name: self._corruption(name) for name in self.names}
        every = [part for found in corruptions.values() for part in found["severities"].values()]
        drops = [part["relative_drop"] for part in every if part["relative_drop"] is not None]
        return {
            "n": len(self.clean),
            "patients": int(self.clean["patient"].nunique()),
            **self._rates(self.clean),
            "corruptions": corruptions,
            "worst": self._worst(self.table),
            "mean_balanced_accuracy": float(np.mean([part["balanced_accuracy"] for part in every])),
            "mean_relative_drop": float(np.mean(drops)) if drops else None,
        }

    def _corruption(self, name: str) -> dict[str, Any]:
        rows = self.first[self.first["corruption"] == name]
        parts = {severity: rows[rows["severity"] == severity] for severity in self.severities}
        found = {
            f"{severity}": {
                **self._rates(part), **self._drop(part), "l2": float(part["distance"].median()),
            }
            for severity, part in parts.items()
        }  # fmt: skip
        tried = self.table[self.table["corruption"].isin([name, *self.clean["corruption"].unique()])]
        return {"severities": found, "worst": self._worst(tried)}

    def _rates(self, part: pd.DataFrame) -> dict[str, Any]:
        return self._estimates(part, (part["pred"] == part["label"]).to_numpy())

    def _worst(self, tried: pd.DataFrame) -> dict[str, Any]:
        """An image counts as right if every prediction for it in `tried` is right.

        `l2` is the median distance over the images that are right when clean: that of the nearest corrupted
        version which is wrong, or of the farthest one if none is. None if no image is right.
        """
        right = (tried["pred"] == tried["label"]).groupby(tried["id"]).all()
        start = self.clean.loc[self.clean["pred"] == self.clean["label"], "id"]
        nearest = tried[tried["pred"] != tried["label"]].groupby("id")["distance"].min().reindex(start)
        reached = nearest.fillna(tried.groupby("id")["distance"].max().reindex(start))
        rates = self._estimates(self.clean, right.loc[self.clean["id"]].to_numpy())
        return {**rates, "l2": float(reached.median()) if len(start) else None}

    def _estimates(self, part: pd.DataFrame, right: np.ndarray) -> dict[str, Any]:
        labels, patients = part["label"].to_numpy(), part["patient"].to_numpy()
        found = metrics.rate_estimates(right, labels, patients, self.classes, confidence=self.confidence)
        kept = {name: found[name] for name in ("accuracy", "balanced_accuracy")}
        return {
            key: entry
            for name, (value, interval) in kept.items()
            for key, entry in ((name, value), (f"{name}_ci", interval))
        }

    def _drop(self, part: pd.DataFrame) -> dict[str, Any]:
        """The share of the clean balanced accuracy that is lost; the interval pairs both on the same patients."""
        before, after = self._before, self.balanced_accuracy(part)
        if not before[0]:
            return {"relative_drop": None, "relative_drop_ci": None}
        with np.errstate(divide="ignore", invalid="ignore"):
            drops = 1 - after / before
        return {"relative_drop": float(drops[0]), "relative_drop_ci": percentiles(drops[1:], self.confidence)}

    @cached_property
    def _before(self) -> np.ndarray:
        return self.balanced_accuracy(self.clean)

    def balanced_accuracy(self, part: pd.DataFrame) -> np.ndarray:
        """Balanced accuracy of some predictions, and that of each resample of patients; 1 + R values.

        The same patients are drawn for every part that has the same images.
        """
        labels, preds = part["label"].to_numpy(), part["pred"].to_numpy()
        count = len(self.classes)
        drawn = resampled_confusions(labels, preds, part["patient"].to_numpy(), count, self.resamples)
        whole = metrics.confusion(labels, preds, count)
        found: np.ndarray = metrics.balanced_accuracy(np.concatenate([whole[None], drawn]))
        return found

    @cached_property
    def errors(self) -> dict[str, np.ndarray]:
        """Corruption -> sum over the severities of 1 - balanced accuracy, as `balanced_accuracy` has it."""
        parts = self.first.groupby(["corruption", "severity"], sort=False)
        sums: dict[str, np.ndarray] = {}
        for (name, _), part in parts:
            key = str(name)
            sums[key] = sums.get(key, np.zeros(1 + self.resamples)) + 1 - self.balanced_accuracy(part)
        return sums


def mean_corruption_error(model: Summary, baseline: Summary) -> dict[str, Any]:
    """The mean over the corruptions of the model's error as a share of the baseline's, with its interval.

    An error is the sum over the severities of 1 - balanced accuracy, as in MedMNIST-C (Di Salvo et al. 2024),
    after Hendrycks & Dietterich (2019). None if the baseline makes no error under some corruption. Both
    models must have been evaluated on the same images and corruptions.
    """
    own, reference = model.errors, baseline.errors
    if any(errors[0] == 0 for errors in reference.values()):
        return {"mean_corruption_error": None, "mean_corruption_error_ci": None}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.mean([own[name] / reference[name] for name in reference], axis=0)
    drawn = np.where(np.isfinite(ratios[1:]), ratios[1:], np.nan)
    interval = percentiles(drawn, model.confidence) if np.isfinite(drawn).any() else None
    return {"mean_corruption_error": float(ratios[0]), "mean_corruption_error_ci": interval}
