"""Maps of the same images clean, attacked and under noise, and how far they differ, per image."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from medrobust.attacks.regions import foreground
from medrobust.explain.attacked_images import noisy_images
from medrobust.explain.drift import mass_inside, rank_correlation, top_overlap
from medrobust.explain.explained_model import ExplainedModel


@dataclass(frozen=True)
class MapComparison:
    """What an attack does to a model's maps; `attacked` is n×C×H×W.

    Attributes:
        rows: int n; positions of the compared images among the test images.
        tables: kind of map -> one row per image: `id`, `patient`, `label`, `changed` (whether the
            attack changed the prediction), and the measures.
        region: `outlined` (by the publisher of the images) or `foreground` (Otsu's threshold).
        share: mean share of the image that the region covers, over the images that have one; NaN if none has.
    """

    rows: np.ndarray
    attacked: Tensor
    tables: dict[str, pd.DataFrame]
    region: str
    share: float


def compare_maps(explained: ExplainedModel, count: int, eps: float, top: float) -> MapComparison:
    """Compare the maps of `count` evenly spaced test images (0 = all); `top` is a share of the pixels.

    Each map is for the class that the model predicts for that version of the image, because that is the map a
    reader would be shown. `same_class` is the map of the attacked image for the class predicted for the clean one.
    """
    total = len(explained.test)
    rows = np.unique(np.linspace(0, total - 1, min(count or total, total)).round().astype(int))
    some = explained.test.take(rows)
    clean, attacked = some.batch(range(len(some))), explained.attacked(some, eps)
    noisy = noisy_images(some, eps, explained.suite["norm"], explained.seed)
    before, after = (explained.probabilities(images).argmax(1) for images in (clean, attacked))
    changed = before != after
    maps = {
        "clean": explained.maps(clean, before),
        "attacked": explained.maps(attacked, after),
        "noise": explained.maps(noisy, explained.probabilities(noisy).argmax(1)),
    }
    maps["same_class"] = {kind: own.copy() for kind, own in maps["attacked"].items()}
    if changed.any():
        for kind, own in explained.maps(attacked[changed], before[changed]).items():
            maps["same_class"][kind][changed] = own
    # The mask comes from the clean images, so that an attack cannot move it.
    if some.store_masks is not None:
        region, regions = "outlined", some.masks(range(len(some)))
    else:
        region, regions = "foreground", foreground(clean)
    masks = regions[:, 0].numpy()
    facts = {"id": some.ids, "patient": some.patients, "label": some.labels, "changed": changed}
    tables = {
        kind: pd.DataFrame(facts | _measure({name: own[kind] for name, own in maps.items()}, masks, top))
        for kind in maps["clean"]
    }
    covered = masks.mean((1, 2))
    share = float(covered[covered > 0].mean()) if covered.any() else np.nan
    return MapComparison(rows, attacked, tables, region, share)


def _measure(maps: dict[str, np.ndarray], masks: np.ndarray, top: float) -> dict[str, np.ndarray]:
    """`iou` and `rank` of the clean map and each other (`attacked` has no suffix), and mass inside the mask."""
    columns = {}
    for name in ("attacked", "same_class", "noise"):
        suffix = "" if name == "attacked" else f"_{name}"
        columns[f"iou{suffix}"] = top_overlap(maps["clean"], maps[name], top)
        columns[f"rank{suffix}"] = rank_correlation(maps["clean"], maps[name])
    for name in ("clean", "attacked"):
        columns[f"inside_{name}"] = mass_inside(maps[name], masks)
    return columns
