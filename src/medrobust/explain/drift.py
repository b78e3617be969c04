"""How far maps move between two versions of an image, and the share of a map inside a region. NumPy and SciPy.

Maps are float n×H×W, 0 or larger. Where a measure is not defined for an image (a map of zeros), it is NaN.
"""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.intervals import mean_ci


def top_overlap(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Intersection over union of the top `share` of the pixels of two maps, n; zeros never belong to the top."""
    tops = [_top(maps, share) for maps in (first, second)]
    both, either = (tops[0] & tops[1]).sum((1, 2)), (tops[0] | tops[1]).sum((1, 2))
    known = tops[0].any((1, 2)) & tops[1].any((1, 2))
    return np.divide(both, either, out=np.full(len(first), np.nan), where=known)


def unrelated_overlap(share: float) -> float:
    """The mean of `top_overlap` for two independent maps: p² / (2p - p²)."""
    return share / (2 - share)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of the pixels of two maps, n."""
    from scipy.stats import spearmanr

    flat = [maps.reshape(len(maps), -1) for maps in (first, second)]
    varies = np.ptp(flat[0], 1) * np.ptp(flat[1], 1) > 0
    result = np.full(len(first), np.nan)
    for row in np.flatnonzero(varies):
        result[row] = spearmanr(flat[0][row], flat[1][row]).statistic
    return result


def mass_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each map's sum that lies inside its mask (bool n×H×W), n; NaN for an empty mask too."""
    mass = maps.sum((1, 2), dtype=np.float64)
    inside = (maps * masks).sum((1, 2), dtype=np.float64)
    known = (mass > 0) & masks.any((1, 2))
    return np.divide(inside, mass, out=np.full(len(maps), np.nan), where=known)


def with_interval(
    values: np.ndarray, patients: np.ndarray, labels: np.ndarray, name: str, *, resamples: int, confidence: float
) -> dict[str, Any]:
    """Mean of the defined values as `name`, its interval as `<name>_ci`, and their number as `<name>_n`.

    Values (n) are NaN where not defined; mean and interval are None where none is. Patients are drawn as in
    `intervals.mean_ci`.
    """
    known = ~np.isnan(values)
    if not known.any():
        return {name: None, f"{name}_ci": None, f"{name}_n": 0}
    values, patients, labels = values[known], patients[known], labels[known]
    interval = mean_ci(values, labels, patients, resamples=resamples, confidence=confidence)
    return {name: float(values.mean()), f"{name}_ci": interval, f"{name}_n": len(values)}


def summarise_drift(table: pd.DataFrame, *, resamples: int, confidence: float) -> dict[str, Any]:
    """Mean and interval of every measure of one kind of map (see `MapComparison.tables`).

    `iou` and `rank` are also given over the images whose prediction changed, as `<measure>_changed`.
    """
    result: dict[str, Any] = {}
    changed = table["changed"].to_numpy(dtype=bool)
    patients, labels = table["patient"].to_numpy(), table["label"].to_numpy()
    intervals: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    for name in table.columns.drop(["id", "patient", "label", "changed"], errors="ignore"):
        values = table[name].to_numpy(dtype=float)
        result |= with_interval(values, patients, labels, name, **intervals)
        if name in ("iou", "rank"):
            result |= with_interval(
                values[changed], patients[changed], labels[changed], f"{name}_changed", **intervals
            )
    return result


def _top(maps: np.ndarray, share: float) -> np.ndarray:
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(share * flat.shape[1]))
    limit = np.partition(flat, -count, axis=1)[:, -count, None]
    return ((flat >= limit) & (flat > 0)).reshape(maps.shape)
