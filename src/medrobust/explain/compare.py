"""Maps of the same images clean, attacked and under noise, and how far they differ, image by image."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from medrobust.attacks.regions import foreground
from medrobust.data.store import Subset
from medrobust.explain.attacked import noisy_images
from medrobust.explain.drift import mass_inside, rank_correlation, top_overlap
from medrobust.explain.subject import Subject


@dataclass(frozen=True)
class Comparison:
    """What an attack does to a model's maps.

    Attributes:
        rows: int n; the compared images' places among the test images.
        attacked: n×C×H×W.
        tables: kind of map -> one row an image: `id`, `patient`, `label`, `changed`, and what `_measure` gives.
        region: `outlined` (by the publisher of the images) or `foreground` (Otsu's threshold).
        share: mean share of the image that the region fills, over the images that have one; NaN if none has.
    """

    rows: np.ndarray
    attacked: Tensor
    tables: dict[str, pd.DataFrame]
    region: str
    share: float


def compare(subject: Subject, count: int, eps: float, top: float) -> Comparison:
    """Compare the maps of evenly spaced test images.

    Each map speaks for the class that the model answers for that very version of the image, because that is the
    map that a reader would be shown; `same_class` looks at the attacked image for the clean one's class instead.

    Args:
        subject: the model and its evaluation.
        count: images; 0 = all.
        eps: radius of the attack, in the suite's norm.
        top: share of the pixels that counts as the top of a map.
    """
    everyone = len(subject.test)
    rows = np.unique(np.linspace(0, everyone - 1, min(count or everyone, everyone)).round().astype(int))
    some = subject.test.take(rows)
    clean, attacked = some.batch(range(len(some))), subject.attacked(some, eps)
    noisy = noisy_images(some, eps, subject.suite["norm"], subject.seed)
    before, after = (subject.probabilities(images).argmax(1) for images in (clean, attacked))
    changed = before != after
    maps = {
        "clean": subject.maps(clean, before),
        "attacked": subject.maps(attacked, after),
        "noise": subject.maps(noisy, subject.probabilities(noisy).argmax(1)),
    }
    maps["same_class"] = {kind: found.copy() for kind, found in maps["attacked"].items()}
    if changed.any():
        for kind, found in subject.maps(attacked[changed], before[changed]).items():
            maps["same_class"][kind][changed] = found
    region, regions = _regions(some, clean)
    facts = {"id": some.ids, "patient": some.patients, "label": some.labels, "changed": changed}
    tables = {
        kind: pd.DataFrame(facts | _measure({name: found[kind] for name, found in maps.items()}, regions, top))
        for kind in maps["clean"]
    }
    filled = regions.mean((1, 2))
    return Comparison(rows, attacked, tables, region, float(filled[filled > 0].mean()) if filled.any() else np.nan)


def _regions(some: Subset, clean: Tensor) -> tuple[str, np.ndarray]:
    """Where a map should lie, bool n×H×W, found on clean images: an attack must not move it."""
    if some.store_masks is not None:
        return "outlined", some.masks(range(len(some)))[:, 0].numpy()
    return "foreground", foreground(clean)[:, 0].numpy()


def _measure(maps: dict[str, np.ndarray], regions: np.ndarray, top: float) -> dict[str, np.ndarray]:
    """`iou` and `rank` of the clean map and each other one (`attacked` has no suffix), and mass inside regions."""
    found = {}
    for name in ("attacked", "same_class", "noise"):
        suffix = "" if name == "attacked" else f"_{name}"
        found[f"iou{suffix}"] = top_overlap(maps["clean"], maps[name], top)
        found[f"rank{suffix}"] = rank_correlation(maps["clean"], maps[name])
    for name in ("clean", "attacked"):
        found[f"inside_{name}"] = mass_inside(maps[name], regions)
    return found
