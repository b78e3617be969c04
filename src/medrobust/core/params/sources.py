"""Blocks inside `data` that tell a source how to read what it finds: tables and volumes."""

from typing import Annotated

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, Share


class TableParams(Block):
    """The table that names each image, volume or series, and what its columns are called.

    `path` (huggingface: `image`) and `label` must be there. Each of the other columns is read where there is one
    of that name; one that params.yaml names must exist.
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
    """Which slices of a volume or series become images."""

    range: tuple[Share, Share] = (0.0, 1.0)
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _upwards(self) -> "VolumeParams":
        if self.range[0] >= self.range[1]:
            raise ValueError(f"the range {list(self.range)} is empty: give the lower share first")
        return self
