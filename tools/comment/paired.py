"""The paired test between two commits: the same test images under both models, patients as the unit."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medrobust.attacks.engine.attempts import worst_case
from tools.comment.compare import Measure

if TYPE_CHECKING:
    import pandas as pd

#: Reads an output of a commit from DVC's cache or remote; None if it is in neither.
Fetch = Callable[[str], "pd.DataFrame | None"]
#: Up to so many patients whose results differ, all signs are tried; above, `DRAWS` random ones.
EXACT, DRAWS = 12, 10_000


def fetcher(root: Path, revision: str | None) -> Fetch:
    """Read tables that dvc.lock of a revision names; None = those in the working tree."""
    import pandas as pd
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=revision)

    def fetch(path: str) -> "pd.DataFrame | None":
        try:
            with files.open(path, "rb") as file:
                table: pd.DataFrame = pd.read_parquet(file)
        except Exception:  # each kind of remote raises errors of its own
            return None
        return table

    return fetch


def p_value(measure: Measure, fetch_base: Fetch, fetch_this: Fetch) -> float | None:
    """P-value of "both models are equally good"; None unless both have records of the same images."""
    import pandas as pd

    path = _path(measure)
    base, this = fetch_base(path), fetch_this(path)
    if base is None or this is None:
        return None
    images = ["id", "patient", "label"]
    old, new = (_correct(measure, table)[[*images, "correct"]] for table in (base, this))
    pairs = pd.merge(old, new, on=images, how="outer", suffixes=("_base", "_this"))
    if pairs.isna().any(axis=None):
        return None
    gain = pairs["correct_this"].to_numpy(float) - pairs["correct_base"].to_numpy(float)
    if measure.suite is None:  # balanced accuracy: every class counts the same
        gain /= pairs.groupby("label")["id"].transform("size").to_numpy()
    return sign_flip(gain, pairs["patient"].to_numpy())


def sign_flip(gain: np.ndarray, patients: np.ndarray) -> float:
    """P-value of a sum of paired differences under random signs of whole patients (two-sided).

    `gain` is the difference of each image, float n; `patients` is text, n.
    """
    sums = np.bincount(np.unique(patients, return_inverse=True)[1], gain)
    sums = sums[np.abs(sums) > 1e-12]
    if len(sums) <= EXACT:
        signs = np.array([*product((-1, 1), repeat=len(sums))])
        return float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9))
    signs = np.random.default_rng(0).choice((-1, 1), (DRAWS, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9)) / (1 + DRAWS))


def _path(measure: Measure) -> str:
    """The output with one row per image (clean) or per attempt."""
    if measure.suite:
        return f"data/attacks/{measure.model}/{measure.suite}.parquet"
    return f"data/predictions/{'ensemble' if measure.model.startswith('ensemble-') else measure.model}.parquet"


def _correct(measure: Measure, table: "pd.DataFrame") -> "pd.DataFrame":
    """One row per test image, with whether the model is right (under attack: at the radius)."""
    if measure.eps:
        worst = worst_case(table, [float(measure.eps)])
        return worst.assign(correct=~worst["fooled"])
    test = table[table["split"] == "test"]
    return test.assign(correct=test["pred"] == test["label"])
