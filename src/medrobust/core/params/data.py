"""Blocks `data`, `split` and `audit`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from medrobust.core.params.base import Block, Share
from medrobust.core.params.sources import TableParams, VolumeParams


def _number_as_text(name: Any) -> Any:
    """YAML reads `{0: Mild}` with a number; the data's labels are compared as text."""
    return str(name) if type(name) is int else name


class PhantomParams(Block):
    """How many synthetic patients the built-in data set has, and how hard they are to grade."""

    patients: dict[str, Annotated[int, Field(ge=1)]]
    slices: Annotated[int, Field(ge=1)]
    difficulty: Annotated[float, Field(ge=0)]
    site: Annotated[float, Field(ge=0, le=0.2)] = 0.0


class DataParams(Block):
    """Where the images come from and the shape in which they are stored."""

    source: str
    path: str | None = None
    sha256: str | None = None
    classes: Annotated[list[str], Field(min_length=2)]
    ordered: bool
    image_size: Annotated[int, Field(ge=8)]
    channels: Literal[1, 3]
    on_bad_image: Literal["fail", "skip"]
    labels: dict[Annotated[str, BeforeValidator(_number_as_text)], str | None] = Field(default_factory=dict)
    on_mixed_patient: Literal["fail", "keep", "skip"] = "fail"
    window: tuple[float, float] | None = None
    table: TableParams | None = None
    volume: VolumeParams = Field(default_factory=VolumeParams)
    phantom: PhantomParams | None = None

    @model_validator(mode="after")
    def _fits(self) -> "DataParams":
        if repeated := {name for name in self.classes if self.classes.count(name) > 1}:
            raise ValueError(f"data.classes names {', '.join(sorted(repeated))} more than once")
        if unknown := {name for name in self.labels.values() if name} - set(self.classes):
            raise ValueError(f"data.labels names {', '.join(sorted(unknown))}, which data.classes does not have")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"data.window {list(self.window)} is empty: give the lower intensity first")
        return self


class SplitParams(Block):
    """How images are dealt to train, validation and test."""

    strategy: Literal["patient", "kfold", "published", "random"]
    val: Share
    test: Share
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    unknown_parent: Literal["exclude", "train"] = "exclude"
    small_class: Literal["fail", "train_only", "no_val", "merge"]
    merge: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_more_than_all(self) -> "SplitParams":
        if self.strategy in ("patient", "random") and self.val + self.test > 1 + 1e-9:
            raise ValueError(f"val {self.val:g} and test {self.test:g} are more than all: train needs a share too")
        return self

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitParams":
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: folds: {self.folds} are counted from 0")
        return self


class AuditParams(Block):
    """When two images count as the same, and what a leak does to the run."""

    near_duplicate: Share
    same_patient: Share = 0.99
    on_leak: Literal["warn", "fail"]
