"""Block `report`."""

from typing import Annotated

from pydantic import Field

from medrobust.core.params.base import Block


class ReportParams(Block):
    """The title of the report, its intervals, and the number of images that it shows."""

    title: str
    bootstrap: Annotated[int, Field(ge=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    sheet: Annotated[int, Field(ge=0)]
