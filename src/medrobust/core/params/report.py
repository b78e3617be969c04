"""Block `report`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from medrobust.core.params.base import Block, Count, Natural, printable


class ReportParams(Block):
    """The title of the report, its intervals, and the number of images that it shows."""

    title: Annotated[str, AfterValidator(printable)]
    bootstrap: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    sheet: Natural
