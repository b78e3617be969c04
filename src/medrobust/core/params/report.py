"""Block `report`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medrobust.core.params.base import Block, Count, Natural, printable


class RepeatedParams(Block):
    """A table of `make seeds` or `make folds`: what the runs differ in, and the file."""

    over: Literal["seeds", "folds"]
    file: str


def _one_of_each(tables: list[RepeatedParams]) -> list[RepeatedParams]:
    """Raise ValueError for two tables of the same kind."""
    if len({table.over for table in tables}) < len(tables):
        raise ValueError("Name one table over seeds and one over folds at most")
    return tables


class ReportParams(Block):
    """The title of the report, its intervals, and whether images of the data are drawn.

    Attributes:
        pictures: whether the audit, explanations and the page draw images of the data. DVC stores such pictures,
            and git never does.
        cases: number of test images on the page of single images; 0 = no such page.
        repeated: tables of repeated runs; the report shows those that belong to its run.
    """

    title: Annotated[str, AfterValidator(printable)]
    bootstrap: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    pictures: bool
    cases: Natural
    repeated: Annotated[list[RepeatedParams], AfterValidator(_one_of_each)]
