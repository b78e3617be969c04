"""Block `external`: other data, on which finished models are only evaluated."""

from typing import Annotated

from pydantic import Field, model_validator

from medrobust.core.params.base import Block, ClassName, Label, Name, Named
from medrobust.core.params.data import DataParams, PhantomParams
from medrobust.core.params.sources import TableParams


class ExternalData(DataParams):
    """The block `data` of an external set: the preprocessing of training, but only the labels that it names."""

    @property
    def label_names(self) -> dict[str, str | None]:
        return dict(self.labels)

    @property
    def needed_classes(self) -> list[str]:
        return [name for name in self.classes if name in self.labels.values()]


class ExternalSetParams(Block):
    """One external data set: where its images come from, and what their labels mean.

    Everything else is as in `data`: size, channels, window, volumes, and what happens to bad images.

    Attributes:
        classes: label in these data -> class of `data.classes`, or None to leave out its images.
        suites: suites of attacks that models are evaluated under on these images.
        patient_suites: suites that attack all images of a patient at once.
    """

    source: str
    path: str | None = None
    sha256: str | None = None
    classes: Annotated[dict[Label, ClassName | None], Field(min_length=1)]
    suites: list[str]
    patient_suites: list[str]
    ignore: list[str] = Field(default_factory=list)
    table: TableParams | None = None
    phantom: PhantomParams | None = None

    def as_data(self, data: DataParams) -> ExternalData:
        """The block with which `download` and `prepare` read these data."""
        own = {name: getattr(self, name) for name in ("source", "path", "sha256", "ignore", "table", "phantom")}
        values = {name: getattr(data, name) for name in DataParams.model_fields}
        return ExternalData.model_validate({**values, **own, "labels": self.classes, "groups": {}})


class EvaluatedParams(Block):
    """A result of `medrobust evaluate --out` that the report shows: the name of the data, and the file."""

    set: Name
    file: str


class ExternalParams(Block):
    """Data sets that the pipeline evaluates, and results of evaluations that were made without it."""

    sets: Named[ExternalSetParams]
    evaluated: list[EvaluatedParams]

    @property
    def names(self) -> list[str]:
        """All external data sets, those that the pipeline evaluates first."""
        return list(dict.fromkeys([*self.sets, *(entry.set for entry in self.evaluated)]))

    @model_validator(mode="after")
    def _one_origin(self) -> "ExternalParams":
        known = {name.lower() for name in self.sets}
        if taken := [entry.set for entry in self.evaluated if entry.set.lower() in known]:
            raise ValueError(f"evaluated has the set {taken[0]!r}, which is also one of external.sets: rename it")
        return self
