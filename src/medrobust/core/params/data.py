"""Blocks `data`, `split` and `audit`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, ClassName, Count, Label, Name, Natural, NotNegative, Share
from medrobust.core.params.sources import TableParams, VolumeParams

#: Columns and keys that tables and records have beside one per class, and suffixes of the columns of intervals.
COLUMNS, INTERVALS = ("images", "patients", "patients_by_class"), ("_low", "_high", "_ci")


#: Columns of the manifest; no group can be named after one.
MANIFEST = ("id", "sha256", "label", "patient", "slice", "kind", "parent", "published_split")


class PhantomParams(Block):
    """The number of synthetic patients of the built-in data set, and how hard they are to grade.

    Attributes:
        site: the site of all patients, and the beginning of their ids; None: the sites A and B, drawn by patient.
    """

    patients: dict[ClassName, Count]
    slices: Count
    difficulty: NotNegative
    ripple: Annotated[float, Field(ge=0, le=0.2)]
    shift: Annotated[float, Field(ge=0, le=0.5)]
    site: Name | None = None


class InputParams(Block):
    """How a file becomes the pixels of one stored image, in training and in use (`models.use`)."""

    image_size: Annotated[int, Field(ge=8)]
    channels: Literal[1, 3]
    window: tuple[float, float] | None
    volume: VolumeParams


class DataParams(InputParams):
    """Where the images come from and the form in which they are stored."""

    source: str
    path: str | None
    sha256: str | None
    classes: Annotated[list[ClassName], Field(min_length=2)]
    ordered: bool
    on_bad_image: Literal["fail", "skip"]
    labels: dict[Label, ClassName | None]
    ignore: list[str]
    on_mixed_patient: Literal["fail", "keep", "skip"]
    table: TableParams | None
    groups: dict[Name, Literal["categories"] | Annotated[list[float], Field(min_length=2)]]
    phantom: PhantomParams | None

    @property
    def label_names(self) -> dict[str, str | None]:
        """Label in the data -> class; None: its images are left out."""
        return {name: name for name in self.classes} | self.labels

    @property
    def needed_classes(self) -> list[str]:
        """The classes that must have images."""
        return self.classes

    @model_validator(mode="after")
    def _consistent(self) -> "DataParams":
        if repeated := {name for name in self.classes if self.classes.count(name) > 1}:
            raise ValueError(f"data.classes has {', '.join(sorted(repeated))} more than once")
        taken = {*COLUMNS, *(f"{name}{end}" for name in self.classes for end in INTERVALS)}
        if clash := taken & set(self.classes):
            raise ValueError(
                f"data.classes has {', '.join(sorted(clash))}, a column beside those of classes: rename it"
            )
        if unknown := {name for name in self.labels.values() if name} - set(self.classes):
            raise ValueError(f"data.labels has {', '.join(sorted(unknown))}, which is not in data.classes")
        if reserved := {*self.groups} & {*MANIFEST, "split", "path"}:
            raise ValueError(f"data.groups has {', '.join(sorted(reserved))}, a column of the manifest: rename it")
        for name, limits in self.groups.items():
            if limits != "categories" and any(low >= high for low, high in pairwise(limits)):
                raise ValueError(f"data.groups.{name}: {limits} does not rise")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"data.window {list(self.window)} is empty: put the lower intensity first")
        return self


class CountsParams(Block):
    """Images of each split, drawn in equal numbers per class; `unlabelled` is drawn from train."""

    train: Count
    unlabelled: Natural = 0
    val: Count
    test: Count


class SplitParams(Block):
    """How images are divided into train, validation and test."""

    strategy: Literal["patient", "kfold", "held_out", "published", "published_folds", "random"]
    held_out: dict[Name, list[str]]
    train_share: Annotated[float, Field(gt=0, le=1)]
    per_patient: Count | None
    counts: CountsParams | None
    val: Share
    test: Share
    folds: Annotated[int, Field(ge=2)]
    fold: Natural
    unknown_patient: Literal["fail", "exclude"]
    unknown_parent: Literal["exclude", "train"]
    small_class: Literal["fail", "train_only", "no_val", "merge"]
    merge: dict[ClassName, ClassName]

    @model_validator(mode="after")
    def _shares_fit(self) -> "SplitParams":
        if self.strategy in ("patient", "random") and self.val + self.test > 1 + 1e-9:
            raise ValueError(f"val {self.val:g} and test {self.test:g} are more than all: train needs a share too")
        return self

    @model_validator(mode="after")
    def _held_out_is_used(self) -> "SplitParams":
        if (self.strategy == "held_out") != (len(self.held_out) == 1):
            raise ValueError("held_out names one group and its values for strategy held_out, and is {} otherwise")
        return self

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitParams":
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: folds: {self.folds} are counted from 0")
        return self


class AuditParams(Block):
    """When two images count as the same, and what a leak does to the run."""

    near_duplicate: Share
    same_patient: Share
    on_leak: Literal["warn", "fail"]
