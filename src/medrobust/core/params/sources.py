"""Blocks inside `data` that tell a source how to read its files: tables and volumes."""

from pydantic import model_validator

from medrobust.core.params.base import Block, Count, Natural, Share


class TableParams(Block):
    """The table with one row per image, volume or series, and the names of its columns.

    A key that is left out has its own name as the name of the column. `path` (huggingface: `image`) and `label`
    are required columns. Each of the others is read if the table has it; one that params.yaml names must exist.
    """

    file: str | None = None
    path: str = "path"
    image: str = "image"
    label: str = "label"
    patient: str = "patient"
    slice: str = "slice"
    split: str = "split"
    kind: str = "kind"
    parent: str = "parent"


class VolumeParams(Block):
    """Which slices of a volume or series become images, and which frame of a file that has several."""

    range: tuple[Share, Share]
    step: Count
    frame: Natural | None

    @model_validator(mode="after")
    def _upwards(self) -> "VolumeParams":
        if self.range[0] >= self.range[1]:
            raise ValueError(f"the range {list(self.range)} is empty: put the lower share first")
        return self
