"""Which slices of a volume or series become images, and their rows."""

import math

import pandas as pd

from medrobust.core.params.sources import VolumeParams


def chosen_slices(count: int, volume: VolumeParams) -> list[int]:
    """Numbers of the slices inside `volume.range` (shares of the height), every `volume.step`-th of them.

    Raises:
        ValueError: there is none.
    """
    low, high = volume.range
    found = list(range(math.ceil(low * (count - 1)), math.floor(high * (count - 1)) + 1, volume.step))
    if not found:
        raise ValueError(f"none of its {count} slices lies in data.volume.range {list(volume.range)}")
    return found


def one_row_a_slice(table: pd.DataFrame, slices: dict[str, list[int]]) -> pd.DataFrame:
    """The rows of volumes that have slices, repeated with the id `<volume>#<number>` and the number as `slice`."""
    table = table[table["id"].isin(list(slices))]
    table = table.loc[table.index.repeat([len(slices[name]) for name in table["id"]])].reset_index(drop=True)
    numbers = [number for name in table["id"].unique() for number in slices[name]]
    ids = [f"{name}#{number:04d}" for name, number in zip(table["id"], numbers, strict=True)]
    return table.assign(id=ids, slice=numbers, parent="")
