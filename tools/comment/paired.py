"""The paired test between two commits: the same test images under both models, patients as the unit."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust.core.paired import image_weights, sign_flip
from medrobust.report.answers import right_clean, right_under_attack
from tools.comment.compare import Measure

if TYPE_CHECKING:
    import pandas as pd

#: Reads an output of a commit from DVC's cache or remote; None if it is in neither.
Fetch = Callable[[str], "pd.DataFrame | None"]


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
    old, new = (_correct(measure, table)[[*images, "right"]] for table in (base, this))
    pairs = pd.merge(old, new, on=images, how="outer", suffixes=("_base", "_this"))
    if pairs.isna().any(axis=None):
        return None
    gain = pairs["right_this"].to_numpy(float) - pairs["right_base"].to_numpy(float)
    gain *= image_weights(pairs["label"].to_numpy(), balanced=measure.suite is None)
    return sign_flip(gain, pairs["patient"].to_numpy())


def _path(measure: Measure) -> str:
    """The output with one row per image (clean) or per attempt."""
    if measure.suite:
        return f"data/attacks/{measure.model}/{measure.suite}.parquet"
    return f"data/predictions/{'ensemble' if measure.model.startswith('ensemble-') else measure.model}.parquet"


def _correct(measure: Measure, table: "pd.DataFrame") -> "pd.DataFrame":
    """One row per test image, with whether the model is right (under attack: at the radius)."""
    return right_under_attack(table, [float(measure.eps)]) if measure.eps else right_clean(table)
