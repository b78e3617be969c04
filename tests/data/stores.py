"""Small prepared data sets in memory, for the tests of split and audit."""

from typing import Any

import numpy as np
import pandas as pd

from medrobust.core.params.data import SplitParams
from medrobust.data.store import Header, ImageStore
from tests.params import default_block

CLASSES = ["a", "b", "c"]


def store(patients: list[int], slices: int = 4, seed: int = 0) -> ImageStore:
    """Images of the given number of patients per class; slices of a patient are similar."""
    rng = np.random.default_rng(seed)
    rows, pixels = [], []
    for label, count in zip(CLASSES, patients, strict=True):
        for number in range(count):
            anatomy = rng.integers(0, 200, (32, 32))
            for index in range(slices):
                name = f"{label}{number}_{index}"
                rows.append(
                    {"id": name, "sha256": name, "label": label, "patient": f"{label}{number}", "slice": index}
                )
                pixels.append(anatomy + rng.integers(0, 30, (32, 32)))
    manifest = pd.DataFrame(rows).assign(kind="real", parent="", published_split="")
    counts = {label: int((manifest["label"] == label).sum()) for label in CLASSES}
    header = Header("test", CLASSES, True, 32, 1, len(rows), sum(patients), counts, "", "", "", "")
    return ImageStore(np.array(pixels, dtype=np.uint8), manifest, header)


def split_params(**changes: Any) -> SplitParams:
    return default_block(SplitParams, "split", **changes)
