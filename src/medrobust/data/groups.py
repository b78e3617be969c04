"""Groups of patients (sex, age, site): columns of the data, as text per image; an empty text means unknown."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from medrobust.core.errors import UserError

#: Values as they are, or limits of ranges of numbers: [0, 60, 75] = from 0 to below 60, from 60 to 75.
Kind = Literal["categories"] | Sequence[float]


def with_groups(table: pd.DataFrame, groups: Mapping[str, Kind], source: str) -> pd.DataFrame:
    """A table of images (with `id`) whose columns in `groups` hold the group of each image.

    Raises:
        UserError: the data lack a column, or a cell is in no range.
    """
    if missing := [name for name in groups if name not in table]:
        found = f"the data of source {source} have no column {missing[0]!r}"
        raise UserError("params.yaml: data.groups", found, "Set data.table to a table that has it, or remove it")
    return table.assign(**{name: _values(table[name], kind, table["id"]) for name, kind in groups.items()})


def _values(column: pd.Series, kind: Kind, ids: pd.Series) -> pd.Series:
    """The group of each cell of a text column: its text, or its range (`60 to 75`).

    A range includes its lower limit, and the last range also its upper one.
    """
    if kind == "categories":
        return column
    limits = np.array([float(limit) for limit in kind])
    names = np.array([f"{low:g} to {high:g}" for low, high in pairwise(limits)])
    known = (column != "").to_numpy()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    outside = known & ~((numbers >= limits[0]) & (numbers <= limits[-1]))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        found = f"{ids.iloc[row]} has {column.iloc[row]!r}, which is in no range of {limits.tolist()}"
        raise UserError(f"params.yaml: data.groups.{column.name}", found, "Add a range, or leave the cell empty")
    position = np.searchsorted(limits, np.where(known, numbers, limits[0]), side="right") - 1
    return pd.Series(np.where(known, names[position.clip(0, len(names) - 1)], ""), column.index)
