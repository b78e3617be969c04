"""Select the slices of a volume or series that become images, and list them as rows."""

import math
from collections.abc import Callable

import pandas as pd

from medrobust.core.errors import UserError
from medrobust.core.params.data import DataParams
from medrobust.core.params.sources import VolumeParams
from medrobust.core.runtime import progress

#: Endings of volumes, in lower case. Whether a file is packed by gzip is read from its first bytes.
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz", ".img", ".img.gz")
#: A file with such a name is DICOM or damaged; one with another name may be foreign to a series.
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")


class BadFileError(ValueError):
    """One file of a series is not usable. The error names it; `reason` does not, because reports show reasons."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.reason = f"one of its files {reason}"


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


def chosen_frame(count: int, volume: VolumeParams) -> int:
    """Number of the frame (or time point) of a file with `count` of them that is used.

    Raises:
        ValueError: the file has several and `data.volume.frame` does not name one of them.
    """
    if count == 1:
        return 0
    if volume.frame is None:
        raise ValueError(f"it has {count} frames; set data.volume.frame to the number of one, from 0")
    if volume.frame >= count:
        raise ValueError(f"it has {count} frames, numbered from 0, and data.volume.frame is {volume.frame}")
    return volume.frame


def one_row_per_slice(
    table: pd.DataFrame, count_slices: Callable[[str], int], data: DataParams
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Repeat the row of each volume for its selected slices, with the id `<volume>#<number>`.

    `count_slices` raises ValueError if the volume is not usable.

    Returns:
        The rows, and {id, reason} of the volumes that are not usable (with `on_bad_image: skip`).

    Raises:
        UserError: a volume is not usable (with `on_bad_image: fail`).
    """
    slices: dict[str, list[int]] = {}
    skipped = []
    for name in progress(table["id"].tolist(), "listing", unit="volumes"):
        try:
            slices[name] = selected_slices(count_slices(name), data.volume)
        except ValueError as error:
            if data.on_bad_image == "fail":
                remedy = "Fix or remove it, or set data.on_bad_image: skip"
                raise UserError(name, f"is not usable ({error})", remedy) from None
            skipped.append({"id": name, "reason": error.reason if isinstance(error, BadFileError) else str(error)})
    table = table[table["id"].isin(list(slices))]
    table = table.assign(slice=table["id"].map(slices)).explode("slice", ignore_index=True)
    ids = [f"{name}#{number:04d}" for name, number in zip(table["id"], table["slice"], strict=True)]
    return table.assign(id=ids, slice=table["slice"].astype(int), parent=""), skipped
