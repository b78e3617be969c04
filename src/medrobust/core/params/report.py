"""Block `report`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from medrobust.core.params.base import Block, Count, Natural, printable


class ReportParams(Block):
    """The title of the report, its intervals, and whether images of the data are drawn.

    Attributes:
        pictures: whether the audit, explanations and the page draw images of the data. DVC stores such pictures,
            and git never does.
        cases: number of test images on the page of single images; 0 = no such page.
    """

    title: Annotated[str, AfterValidator(printable)]
    bootstrap: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    pictures: bool
    cases: Natural
