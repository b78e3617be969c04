"""Select the slices of a volume or series that become images, and list them as rows."""

import math

import pandas as pd

from medrobust.core.params.sources import VolumeParams


def selected_slices(count: int, volume: VolumeParams) -> list[int]:
    """Numbers of every `volume.step`-th slice inside `volume.range` (shares of the height).

    Raises:
        ValueError: no slice is in the range.
    """
    low, high = volume.range
    numbers = list(range(math.ceil(low * (count - 1)), math.floor(high * (count - 1)) + 1, volume.step))
    if not numbers:
        raise ValueError(f"none of its {count} slices is in data.volume.range {list(volume.range)}")
    return numbers


def one_row_per_slice(table: pd.DataFrame, slices: dict[str, list[int]]) -> pd.DataFrame:
    """Repeat the row of each volume for its slices, with the id `<volume>#<number>` and the number as `slice`.

    Volumes that are not in `slices` are dropped.
    """
    table = table[table["id"].isin(list(slices))]
    table = table.loc[table.index.repeat([len(slices[name]) for name in table["id"]])].reset_index(drop=True)
    numbers = [number for name in table["id"].unique() for number in slices[name]]
    ids = [f"{name}#{number:04d}" for name, number in zip(table["id"], numbers, strict=True)]
    return table.assign(id=ids, slice=numbers, parent="")
